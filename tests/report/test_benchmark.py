"""The statement of what a method stops and misses."""

from __future__ import annotations

import json

import pytest

from mmbm_onnx.learning.settings import METHODS
from mmbm_onnx.report import benchmark
from mmbm_onnx.report.tables import harden_summary

ENTRIES = [
    {"attack": "patch", "adaptive": False, "victims": 3, "original": 0.99}
    | {"hardened": 0.3, "detector": 0.1},
    {"attack": "warp", "adaptive": False, "victims": 3, "original": 0.98}
    | {"hardened": 0.05, "detector": 0.1004},
]


def test_attacks_are_stopped_or_missed_by_the_detectors_mean(monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "_measured", lambda: {"some": ENTRIES})
    found = benchmark.benchmark_of("some", "detector")
    told = {"graph": "detector", "attacks": ENTRIES}
    assert found == {**told, "stopped": ["patch"], "missed": ["warp"]}
    nothing = {"graph": "detector", "attacks": [], "stopped": [], "missed": []}
    assert benchmark.benchmark_of("other", "detector") == nothing
    assert benchmark.benchmark_of("some", "detector", "tensor") == nothing


def test_without_a_detector_the_hardened_graph_counts(monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "_measured", lambda: {"some": ENTRIES})
    found = benchmark.benchmark_of("some", "hardened")
    assert (found["stopped"], found["missed"]) == (["warp"], ["patch"])


@pytest.mark.parametrize("method", METHODS)
def test_shipped_figures_are_fractions_of_known_methods(method: str) -> None:
    found = benchmark.benchmark_of(method, "detector")
    for entry in found["attacks"]:
        rates = [entry[role] for role in ("original", "hardened", "detector")]
        assert all(0 <= rate <= 1 for rate in rates)
        assert entry["victims"] >= 1
    names = [entry["attack"] for entry in found["attacks"]]
    assert sorted(found["stopped"] + found["missed"]) == sorted(names)


def test_shipped_figures_name_no_other_method() -> None:
    assert set(benchmark._measured()) <= set(METHODS)


def test_summary_names_both_kinds() -> None:
    from test_json_report import report

    made = report()
    told = {"graph": "detector", "attacks": ENTRIES}
    made["benchmark"] = {**told, "stopped": ["patch"], "missed": ["warp"]}
    text = harden_summary(made)
    assert "stops      in the benchmark (500 samples, default settings): patch\n" in text
    assert "misses     in the benchmark (500 samples, default settings): warp (10 %)\n" in text
    made["benchmark"] = {
        "graph": "hardened",
        "attacks": ENTRIES,
        "stopped": [],
        "missed": ["patch"],
    }
    assert "default settings): patch (30 %)\n" in harden_summary(made)
    made["benchmark"] = {"graph": "detector", "attacks": [], "stopped": [], "missed": []}
    assert "in the benchmark" not in harden_summary(made)
    json.dumps(made)
