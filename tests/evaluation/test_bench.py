"""What graphs cost: their names, their ratios, their memory, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx import bench
from mmbm_onnx.errors import ModelError, OptionError
from mmbm_onnx.evaluation.bench import bench_graphs
from mmbm_onnx.evaluation.memory import peak_memory
from mmbm_onnx.graph.read import OnnxModel, read_model

NEEDS_PROC = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory"
)


def saved(path: Path, elements: int, name: str = "x") -> OnnxModel:
    """A classifier of 4 features, ``name``, that carries so many further weights."""
    weight = np.zeros((4, elements // 4), np.float32)
    nodes = [
        helper.make_node("MatMul", [name, "w"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["act"]),
        helper.make_node("ReduceSum", ["act", "axes"], ["total"], keepdims=1),
        helper.make_node("Add", [name, "total"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return read_model(path)


def test_every_graph_is_timed_at_every_size_and_number_of_threads(tmp_path: Path) -> None:
    graphs = [saved(tmp_path / "a.onnx", 4_000), saved(tmp_path / "b.onnx", 4_000_000)]
    result = bench_graphs(graphs, seconds=0.1, batch_sizes=(1, 4), threads=(1, 2), memory=False)
    assert [(t.threads, t.latency.batch_size, t.latency.graph) for t in result.timings] == [
        (threads, size, str(tmp_path / name))
        for threads in (1, 2)
        for size in (1, 4)
        for name in ("a.onnx", "b.onnx")
    ]
    assert all(t.latency.ratio > 2 for t in result.timings if t.latency.graph.endswith("b.onnx"))
    assert [file.peak_memory for file in result.files] == [None, None]


@NEEDS_PROC
def test_a_graph_with_larger_weights_takes_more_memory(tmp_path: Path) -> None:
    graphs = [saved(tmp_path / "a.onnx", 4_000), saved(tmp_path / "b.onnx", 40_000_000)]
    result = bench_graphs(graphs, seconds=0.02, batch_sizes=(1,), threads=(1,))
    small, large = (file.peak_memory for file in result.files)
    assert small is not None
    assert large is not None
    assert large - small > 150e6  # bytes; the weights are 160 MB
    assert result.files[1].memory_ratio == large / small


def test_a_ratio_above_the_limit_fails(tmp_path: Path) -> None:
    graphs = [saved(tmp_path / "a.onnx", 4_000), saved(tmp_path / "b.onnx", 4_000_000)]
    limits = {"seconds": 0.1, "batch_sizes": (1,), "threads": (1,), "memory": False}
    assert not bench_graphs(graphs, max_ratio=1.5, **limits).passed
    assert bench_graphs(graphs, max_ratio=1e6, **limits).passed


def test_a_limit_below_one_is_for_the_other_graphs(tmp_path: Path) -> None:
    graphs = [saved(tmp_path / "slow.onnx", 4_000_000), saved(tmp_path / "fast.onnx", 4_000)]
    result = bench_graphs(
        graphs, max_ratio=0.9, seconds=0.1, batch_sizes=(1,), threads=(1,), memory=False
    )
    assert result.passed
    assert result.worst_ratio == result.timings[1].latency.ratio < 0.9
    assert not replace(result, max_ratio=result.worst_ratio / 2).passed


def test_graphs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.onnx", 4_000)
    with pytest.raises(OptionError, match="two graphs"):
        bench_graphs([first])
    with pytest.raises(OptionError, match="named twice"):
        bench_graphs([first, first])
    with pytest.raises(OptionError, match="is not what"):
        bench_graphs([first, saved(tmp_path / "b.onnx", 4_000, "z")])


def test_models_in_memory_may_have_one_name(tmp_path: Path) -> None:
    proto = saved(tmp_path / "a.onnx", 4_000).proto
    result = bench(proto, proto, proto, batch_sizes=2, threads=1, seconds=0.02, memory=False)
    assert [file.path for file in result.files] == ["g", "g (2)", "g (3)"]
    assert {timing.latency.batch_size for timing in result.timings} == {2}
    with pytest.raises(OptionError, match="batch_sizes is None"):
        bench(proto, proto, batch_sizes=None)


@NEEDS_PROC
def test_files_beside_a_model_are_no_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "a.onnx", 4_000)
    for name in ("json", "numpy", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)
    assert model.path is not None
    found = peak_memory(model.path, ("x", np.zeros((1, 4), np.float32)))
    assert found is not None
    assert found > 0


@NEEDS_PROC
def test_a_graph_that_does_not_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx: its memory cannot be measured"):
        peak_memory(path, ("x", np.zeros((1, 4), np.float32)))
