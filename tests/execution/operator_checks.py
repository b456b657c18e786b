"""Graphs of one node, run by the executor and by ONNX Runtime and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from mmbm_onnx.execution.executor import GraphExecutor

onnxruntime.set_default_logger_severity(4)


def one_node(
    op_type: str,
    x: np.ndarray,
    *constants: np.ndarray | None,
    opset: int,
    outputs: Sequence[str] = ("y",),
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node: input ``x``, then constants (None: omitted), outputs by name."""
    names = ["x"] + [
        "" if value is None else f"constant_{place}" for place, value in enumerate(constants)
    ]
    while names[-1] == "":
        names.pop()
    initializers = [
        numpy_helper.from_array(np.array(value, order="C"), f"constant_{place}")
        for place, value in enumerate(constants)
        if value is not None
    ]
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [helper.make_node(op_type, names, list(outputs), **attributes)],
        "one_node",
        [helper.make_tensor_value_info("x", element, list(x.shape))],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def by_runtime(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """All outputs by ONNX Runtime on CPU, without graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})


def by_executor(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """All outputs by the executor."""
    names = [value.name for value in model.graph.output]
    result = GraphExecutor(model).run({model.graph.input[0].name: torch.from_numpy(x)}, names)
    return [result[name].detach().numpy() for name in names]


def assert_agrees(model: onnx.ModelProto, x: np.ndarray, tolerance: float = 1e-5) -> None:
    """The executor gives what ONNX Runtime gives: shapes, types and values of every output."""
    expected, actual = by_runtime(model, x), by_executor(model, x)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def assert_maps(model: onnx.ModelProto, x: np.ndarray, tolerance: float = 1e-5) -> None:
    """Under ``torch.func.vmap`` the executor gives each group what it gives it alone."""
    executor = GraphExecutor(model)
    output = model.graph.output[0].name

    def run(value: torch.Tensor) -> torch.Tensor:
        return executor.run({"x": value}, [output])[output]

    groups = torch.from_numpy(np.stack([x, x * -0.5 + 0.25, x[..., ::-1]]).copy())
    mapped = torch.func.vmap(run)(groups)
    alone = torch.stack([run(group) for group in groups])
    assert float((alone[0] - alone[1]).abs().max()) > 0
    torch.testing.assert_close(mapped, alone, rtol=tolerance, atol=tolerance)


def assert_differentiable(model: onnx.ModelProto, x: np.ndarray) -> None:
    """The gradient of the first output is right, by finite differences in float64."""
    assert x.dtype == np.float64
    executor = GraphExecutor(model)
    output = model.graph.output[0].name

    def run(value: torch.Tensor) -> torch.Tensor:
        return executor.run({"x": value}, [output])[output]

    leaf = torch.from_numpy(x).requires_grad_()
    assert float(torch.autograd.grad(run(leaf).square().sum(), leaf)[0].abs().max()) > 0
    assert torch.autograd.gradcheck(run, (leaf,))


def noise(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
