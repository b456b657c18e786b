"""The JSON report: its schema, its documentation, its strictness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import toy_models

from mmbm_onnx.evaluation.bench import bench_graphs
from mmbm_onnx.evaluation.figures import Figures
from mmbm_onnx.evaluation.gates import at_most, holds
from mmbm_onnx.evaluation.latency import Latency
from mmbm_onnx.evaluation.verification import Limits, verify_graphs
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning.settings import Settings
from mmbm_onnx.report.json_report import harden_report, strict, to_json, with_files
from mmbm_onnx.report.pieces import (
    CleanSet,
    DetectorPart,
    Execution,
    Folding,
    Method,
    Parity,
    Tool,
    library_versions,
    summarize_site,
)
from mmbm_onnx.report.schema import SchemaName, load_schema
from mmbm_onnx.report.tables import harden_summary
from mmbm_onnx.types import Uncovered

DOCUMENT = Path(__file__).parents[2] / "docs" / "report-schema.md"
SCHEMAS: tuple[SchemaName, ...] = (
    "harden-report-1",
    "verify-report-1",
    "scan-report-1",
    "inspection-1",
    "bench-report-1",
)


def pieces() -> dict[str, Any]:
    model = toy_models.original()
    (site,) = find_sites(model.proto).sites
    bound = np.asarray(toy_models.BOUNDS, np.float32)
    return {
        "tool": Tool("0.1.0"),
        "model": model,
        "interface": find_interface(model.proto),
        "clean_set": CleanSet("clean/", 60, 30, 30, 3, ("a", "b", "c"), True, {"scale": 1 / 255}),
        "method": Method("mmac", "channel", {"epochs": 3, "start": "low"}),
        "sites": [summarize_site(site, bound, clean_max=0.9, share_above=0.25)],
        "uncovered": [Uncovered("t", "Tanh", "limited by its own form")],
        "figures": {
            "original": Figures(accuracy=1.0),
            "hardened": Figures(accuracy=0.98, agreement=0.98),
            "detector": Figures(accuracy=1.0, agreement=1.0),
        },
        "detector": DetectorPart(
            0.01,
            0.0,
            "leave-one-out",
            "evidence",
            "original",
            0.05,
            "float",
            "the model has subgraphs",
            "gaussian",
            30,
            np.float32(1.5),
        ),
        "latency": [
            Latency(role, 1, 0.001, ratio, 1.0, 2.0, 50)
            for role, ratio in (("original", 1.0), ("hardened", 1.02), ("detector", 1.9))
        ],
        "execution": Execution("cpu", None, ("CPUExecutionProvider",)),
        "folding": Folding("auto", True, None),
        "parity": Parity(1e-7, 2e-7, 1e-4),
        "seed": 0,
        "seconds": {"learn": 1.5, "write": 0.5},
        "gates": [
            at_most("hardened_accuracy_drop", 0.02, 0.02, message="accuracy"),
            holds("hardened_valid", True),
        ],
        "warnings": ["one"],
    }


def report(**changes: Any) -> dict[str, Any]:
    return harden_report(**{**pieces(), **changes})


def valid(told: Any, schema: SchemaName = "harden-report-1") -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema(schema))
    jsonschema.validate(json.loads(to_json(told)), load_schema(schema))


def test_a_report_validates_against_its_schema() -> None:
    told = report()
    valid(told)
    valid(with_files(told, {"hardened": ([Path("h.onnx"), Path("h.onnx.data")], "0" * 64)}))


def test_a_report_without_detector_or_labels_validates_too() -> None:
    figures = {"original": Figures(), "hardened": Figures(agreement=1.0)}
    clean_set = replace(pieces()["clean_set"], has_labels=False, preprocessing=None)
    told = report(detector=None, figures=figures, clean_set=clean_set)
    valid(told)
    assert told["figures"]["detector"] is None
    assert told["figures"]["hardened"] == {"accuracy": None, "agreement": 1.0}


def test_the_schema_notices_what_is_missing_unknown_or_out_of_range() -> None:
    for spoil in (
        lambda told: told.pop("gates"),
        lambda told: told.update(extra=1),
        lambda told: told["figures"]["original"].update(accuracy=98.0),
        lambda told: told["sites"][0].update(share_above=-0.1),
        lambda told: told["model"].update(sha256="abc"),
    ):
        told = report()
        spoil(told)
        with pytest.raises(jsonschema.ValidationError):
            valid(told)


def test_a_comparison_of_costs_validates_against_its_schema() -> None:
    models = [replace(make(), path=None) for make in (toy_models.original, toy_models.hardened)]
    graphs = [replace(model, path=Path(f"{i}.onnx")) for i, model in enumerate(models)]
    result = bench_graphs(graphs, seconds=0.02, batch_sizes=(1, 2), threads=(1,), memory=False)
    valid(result.to_dict(), "bench-report-1")
    valid(replace(result, max_ratio=1.5).to_dict(), "bench-report-1")


def test_a_verification_validates_against_its_schema() -> None:
    given = (toy_models.original(), toy_models.hardened(), toy_models.clean())
    valid(verify_graphs(*given).to_dict(), "verify-report-1")
    result = verify_graphs(
        *given,
        detector=toy_models.detector(),
        triggered=toy_models.triggered(),
        limits=Limits(0.02, 0.01, 0.05),
    )
    valid(result.to_dict(), "verify-report-1")


def fields(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield prefix + name, inner
        yield from fields(inner, f"{prefix}{name}.")
        yield from fields(inner.get("items", {}), f"{prefix}{name}[].")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described_in_the_schema_and_in_the_documentation(name: SchemaName) -> None:
    schema = load_schema(name)
    text = DOCUMENT.read_text(encoding="utf-8")
    (section,) = [
        part for part in text.split("\n## ") if part.startswith(f"`{schema['title']}`, version 1")
    ]
    rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    described = dict(fields(schema))
    assert len(described) > 20
    assert list(rows) == list(described)
    for field, inner in described.items():
        assert inner["description"] in rows[field]


@pytest.mark.parametrize("name", ["verify-report-1", "harden-report-1"])
def test_every_gate_is_documented(name: SchemaName) -> None:
    result = verify_graphs(
        toy_models.original(),
        toy_models.hardened(),
        toy_models.clean(labelled=name == "verify-report-1"),
        detector=toy_models.detector(),
        triggered=toy_models.triggered(),
        limits=Limits(0.02, 0.01, 0.05),
    )
    text = DOCUMENT.read_text(encoding="utf-8").split("\n## Gates")[1]
    for gate in result.gates:
        assert f"`{gate.name}`" in text


def test_every_setting_is_documented_in_its_order() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## Settings")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == [
        item.name for item in dataclass_fields(Settings)
    ]
    assert all(row[2].strip() for row in rows)


def test_bounds_are_summarised_in_the_unit_of_the_activation() -> None:
    (site,) = report()["sites"]
    assert (site["tensor"], site["bounds"]) == ("act", 3)
    assert (site["bound_min"], site["bound_median"], site["bound_max"]) == (0.5, 1.0, 1.0)
    assert report()["coverage"] == 0.5
    scalar = summarize_site(find_sites(toy_models.original_proto()).sites[0], np.float32(2),
                            clean_max=3, share_above=0)  # fmt: skip
    assert (scalar.bounds, scalar.bound_median) == (1, 2.0)


def test_a_report_passes_when_all_gates_hold() -> None:
    assert report()["passed"] is True
    assert report(gates=[holds("a", True), holds("b", False)])["passed"] is False


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("-inf")])
def test_numbers_that_are_not_finite_are_refused_with_their_place(bad: float) -> None:
    with pytest.raises(ValueError, match=r"seconds\.learn is (nan|inf|-inf)"):
        report(seconds={"learn": bad})
    with pytest.raises(ValueError, match=r"warnings\[1\] is"):
        to_json({**report(), "warnings": ["a", bad]})


def test_numpy_and_paths_become_json() -> None:
    told = strict({"a": np.float32(0.5), "b": (np.int64(3), np.bool_(True)), "c": Path("x")}, "")
    assert told == {"a": 0.5, "b": [3, True], "c": "x"}
    assert type(told["a"]) is float and type(told["b"][0]) is int and told["b"][1] is True
    with pytest.raises(ValueError, match="x is a set, which JSON cannot hold"):
        strict({1}, "x")


def test_the_same_report_is_the_same_bytes_ending_in_a_newline() -> None:
    assert to_json(report()) == to_json(report())
    assert to_json(report()).endswith(b"}\n")


def test_versions_of_the_libraries_are_recorded() -> None:
    found = library_versions()
    assert found["numpy"] == np.__version__
    assert "onnx" in found


def test_the_summary_tells_the_outcome_on_a_terminal() -> None:
    told = with_files(report(), {"hardened": ([Path("build/h.onnx")], "0" * 64)})
    text = harden_summary(told)
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "60 samples, labelled: 30 to learn, 30 to calibrate",
        "mmac, per channel, seed 0, 2.0 s on cpu",
        "1 of 2 activations",
        "flags 0.00 % of clean samples (leave-one-out; asked for 1.00 %), gaussian null",
        "branch     float: the model has subgraphs",
        "PASS  hardened_accuracy_drop  2.00 %  at most 2.00 %",
        "hardened  build/h.onnx",
    ):
        assert part in text
    whole = report()
    detector = {**whole["detector"], "shadow": "int8", "shadow_reason": None}
    assert "branch     int8\n" in harden_summary({**whole, "detector": detector})
    for shadow, told_of in (("folded", False), ("float", True)):
        other = {**detector, "shadow": shadow}
        assert ("branch " in harden_summary({**whole, "detector": other})) == told_of
    (row,) = [line for line in text.splitlines() if line.startswith("detector     1")]
    assert row.split() == ["detector", "100.00", "%", "100.00", "%", "1.90", "x"]
