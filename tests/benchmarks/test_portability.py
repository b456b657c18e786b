"""Graphs run and decide alike in other runtimes; the page says what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.portability.compare import compare, in_short
from benchmarks.portability.graphs import GRAPHS, ORIGINAL, written
from benchmarks.portability.measure import batches, measure
from benchmarks.portability.networks import NETWORKS, Victim, victim
from benchmarks.portability.page import PAGE, RESULTS, with_tables
from benchmarks.portability.runtimes import REFERENCE, Missing, runtimes
from benchmarks.portability.runtimes.node import install

RESULT = json.loads(RESULTS.read_text())
KINDS = (ORIGINAL, "hardened", "hardened-min", "detector", "detector-one-stage")
SAMPLES = 24


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert with_tables(page, RESULT) == page, "run python -m benchmarks.portability --page"


def test_every_network_was_measured_with_every_graph_in_every_runtime() -> None:
    assert RESULT["networks"].keys() == NETWORKS.keys()
    found = {(row["network"], row["graph"], row["runtime"]) for row in RESULT["rows"]}
    assert found == {
        (name, graph, runtime)
        for name, known in RESULT["networks"].items()
        for graph in GRAPHS
        if graph not in known["refused"]
        for runtime in RESULT["runtimes"]
    }
    assert set(RESULT["runtimes"]) >= {REFERENCE, "openvino", "onnxruntime-node", "onnx.reference"}
    flags = [row["flagged"] for row in RESULT["rows"] if row.get("flagged") is not None]
    assert min(flags) > 0


def test_what_the_page_says_in_short_is_what_was_measured() -> None:
    def odd(runtime: str) -> set[tuple[str, str]]:
        return {
            (row["network"], row["graph"])
            for row in RESULT["rows"]
            if row["runtime"] == runtime and ("error" in row or row["differ"])
        }

    for runtime in ("onnxruntime-node", "onnxruntime-web"):
        assert odd(runtime) == set()
    assert all("int8" in graph for _, graph in odd("openvino"))
    # float16, BatchNormalization of opset 11, and DequantizeLinear below opset 19.
    opsets = {name: known["opset"] for name, known in RESULT["networks"].items()}
    assert all(opsets[name] < 19 for name, _ in odd("onnx.reference"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Victim]:
    trained = victim(NETWORKS["residual"], epochs=15)
    graphs, refused = written(trained, tmp_path_factory.mktemp("graphs"), 2, KINDS)
    assert not refused
    return graphs, trained


@pytest.fixture
def denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(True)  # as for all tests


@pytest.mark.usefixtures("denormals")
@pytest.mark.parametrize(
    ("name", "flushed"),
    [
        ("openvino", False),
        ("openvino", True),
        ("onnxruntime-node", True),
        ("onnx.reference", True),
    ],
)
def test_graphs_decide_alike(
    name: str, flushed: bool, made: tuple[dict[str, Path], Victim], tmp_path: Path
) -> None:
    # Behind the first session of ONNX Runtime in this process, which sets it as well.
    torch.set_flush_denormal(flushed)
    if name == "onnxruntime-node" and shutil.which("npm"):
        install(tmp_path, name)
    known = runtimes(tmp_path)
    try:
        known[name].version()
    except Missing as error:
        pytest.skip(str(error))
    graphs, trained = made
    both = {other: known[other] for other in (REFERENCE, name)}
    rows = measure(graphs, trained, both, SAMPLES)
    assert len(rows) == 2 * len(KINDS)
    for row in rows:
        assert "error" not in row, row
        assert row["differ"] == 0, row
        assert row["logits"] < 1e-4 * row["largest"], row
        assert row["kept"] in (None, True), row
        assert row["p_value"] is None or row["p_value"] < 1e-3, row
        if row["flagged"] is not None:  # both ways through the If
            assert SAMPLES / 2 < row["flagged"] < 2 * SAMPLES, row


def test_batches_hold_none_some_and_nothing_but_triggered_samples() -> None:
    shown = np.arange(20, dtype=np.float32).reshape(-1, 1)
    given = Victim(None, (shown, shown), shown, 100 + shown, None)  # type: ignore[arg-type]
    shares = [float((batch >= 100).mean()) for batch in batches(given, 20)]
    assert {0.0, 0.5, 1.0} <= set(shares)
    fixed = Victim(None, (shown, shown), shown, 100 + shown, 4)  # type: ignore[arg-type]
    assert {len(batch) for batch in batches(fixed, 20)} == {4}


def answers(**changes: Any) -> dict[str, np.ndarray]:
    whole = {
        "logits": np.asarray([[3, 1], [0, 2]], np.float32),
        "mmbm_flagged": np.asarray([False, True]),
        "mmbm_p_value": np.asarray([0.5, 0.001], np.float32),
        "mmbm_score": np.asarray([0, 9], np.float32),
        "mmbm_suspected_class": np.asarray([0, 0]),
        "mmbm_corrected_class": np.asarray([0, 1]),
    }
    return whole | {name: np.asarray(v, whole[name].dtype) for name, v in changes.items()}


ORIGINALS = {"logits": np.asarray([[3, 1], [4, 2]], np.float32)}


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({}, 0),
        ({"mmbm_flagged": [False, False]}, 1),
        ({"mmbm_corrected_class": [1, 1]}, 1),
        ({"mmbm_suspected_class": [1, 1]}, 2),
        ({"logits": [[1, 3], [0, 2]]}, 1),
    ],
)
def test_every_decision_is_compared(changes: dict[str, Any], differ: int) -> None:
    assert compare(answers(), answers(**changes), ORIGINALS).differ == differ


def test_differences_and_bits_are_told() -> None:
    found = compare(answers(), answers(logits=[[3.25, 1], [0, 2]]), ORIGINALS)
    assert (found.logits, found.kept, found.flagged) == (0.25, False, 1)
    assert compare(answers(), answers(), ORIGINALS).kept
    found = compare(answers(), answers(mmbm_p_value=[0.25, 0.001]), ORIGINALS)
    assert found.p_value == 0.25
    with pytest.raises(ValueError, match="outputs are"):
        compare(answers(), ORIGINALS, ORIGINALS)


def test_an_error_is_told_in_one_line_without_paths() -> None:
    error = RuntimeError("Check failed at /home/me/src/core.cpp:3:\n  no If\n" + "x" * 999)
    told = in_short(error)
    assert told.startswith("RuntimeError: Check failed at core.cpp:3: no If x")
    assert len(told) < 250
