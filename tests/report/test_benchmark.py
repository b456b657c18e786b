"""The statement of what a method stops and misses."""

from __future__ import annotations

import json

import pytest

from mmbm_onnx.learning.settings import METHODS
from mmbm_onnx.report import benchmark
from mmbm_onnx.report.tables import harden_summary

ENTRIES = [
    {"attack": "patch", "adaptive": False, "victims": 3, "original": 0.99}
    | {"hardened": 0.3, "detector": 0.05, "hardened_worst": 0.6, "detector_worst": 0.1},
    {"attack": "warp", "adaptive": False, "victims": 3, "original": 0.98}
    | {"hardened": 0.05, "detector": 0.0604, "hardened_worst": 0.07, "detector_worst": 0.1044},
]
DETECTOR = {"graph": "detector", "stopped": ["patch"], "missed": ["warp"]}
HARDENED = {"graph": "hardened", "stopped": ["warp"], "missed": ["patch"]}


def test_attacks_are_stopped_or_missed_by_the_worst_victim_of_each_graph(monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "_measured", lambda: {"some": ENTRIES})
    found = benchmark.benchmark_of("some", ["detector", "hardened"])
    assert found == {"attacks": ENTRIES, "graphs": [DETECTOR, HARDENED]}
    assert benchmark.benchmark_of("some", ["hardened"])["graphs"] == [HARDENED]
    nothing = {"graph": "detector", "stopped": [], "missed": []}
    for method, granularity in (("other", "channel"), ("some", "tensor")):
        found = benchmark.benchmark_of(method, ["detector"], granularity)
        assert found == {"attacks": [], "graphs": [nothing]}


@pytest.mark.parametrize("method", METHODS)
def test_shipped_figures_are_fractions_of_known_methods(method: str) -> None:
    found = benchmark.benchmark_of(method, ["detector", "hardened"])
    assert found["attacks"]
    for entry in found["attacks"]:
        assert 0 <= entry["original"] <= 1
        for graph in ("hardened", "detector"):
            assert 0 <= entry[graph] <= entry[f"{graph}_worst"] <= 1
        assert entry["victims"] >= 1
    names = [entry["attack"] for entry in found["attacks"]]
    for graph in found["graphs"]:
        assert sorted(graph["stopped"] + graph["missed"]) == sorted(names)


def test_shipped_figures_name_no_other_method() -> None:
    assert set(benchmark._measured()) <= set(METHODS)


def test_summary_tells_what_each_graph_stops_and_misses() -> None:
    from test_json_report import report

    made = report()
    made["benchmark"] = {"attacks": ENTRIES, "graphs": [DETECTOR, HARDENED]}
    lines = harden_summary(made).splitlines()
    assert "  detector stops   patch" in lines
    assert "  detector misses  warp (6, 10.4)" in lines
    assert "  hardened misses  patch (30, 60)" in lines
    names = [f"attack-{index}" for index in range(30)]
    many = [{**ENTRIES[0], "attack": name} for name in names]
    made["benchmark"] = {
        "attacks": many,
        "graphs": [{"graph": "hardened", "stopped": [], "missed": names}],
    }
    text = harden_summary(made)
    assert "  hardened stops   none\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"{name} (30, 60)" in text for name in names)
    made["benchmark"] = {"attacks": [], "graphs": [{**HARDENED, "stopped": [], "missed": []}]}
    assert "benchmark" not in harden_summary(made)
    json.dumps(made)
