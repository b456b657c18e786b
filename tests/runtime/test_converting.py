"""Graphs in fewer bits, by ONNX Runtime's own tools."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime.quantization
import onnxruntime.transformers.float16
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.runtime.converting import to_half, to_int8


def network(*, opset: int = 17) -> onnx.ModelProto:
    """A convolution with a limit and one without; Min, which the converter leaves in float32."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], name="limit"),
        helper.make_node("Min", ["b", "most"], ["c"], name="least"),
        helper.make_node("Conv", ["c", "v"], ["y"], name="second"),
    ]
    weights = {
        "w": rng.normal(size=(4, 2, 3, 3)),
        "v": rng.normal(size=(3, 4, 1, 1)),
        "zero": np.zeros(()),
        "six": np.full((), 6),
        "most": np.full((1, 4, 1, 1), 2),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def inputs(count: int = 20) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 2, 6, 6)).astype(np.float32)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_int8_is_close_and_quiet(caplog, capfd) -> None:
    proto = network()
    before = proto.SerializeToString(deterministic=True)
    found = to_int8(proto, [inputs()], {"b": 6.0})
    onnx.checker.check_model(found, full_check=True)
    assert proto.SerializeToString(deterministic=True) == before
    wanted = run(proto, inputs())
    assert 0 < np.abs(run(found, inputs()) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert caplog.records == [] and capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


def test_a_limit_is_the_range_whatever_the_samples_show() -> None:
    small = 1e-3 * inputs()
    for limits, high in (({"b": 6.0}, 6.0), ({}, None)):
        found = to_int8(network(), [small], limits)
        constants = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
        (node,) = [
            n for n in found.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "b"
        ]
        top = 255 * float(constants[node.input[1]])
        assert top == pytest.approx(high) if high is not None else top < 0.1


def test_half_is_close_and_in_order() -> None:
    proto = network()
    before = proto.SerializeToString(deterministic=True)
    found = to_half(proto)
    onnx.checker.check_model(found, full_check=True)  # sorted, among other things
    assert proto.SerializeToString(deterministic=True) == before
    assert found.graph.input == proto.graph.input and found.graph.output == proto.graph.output
    stored = {t.name: t.data_type for t in found.graph.initializer}
    assert stored["w"] == stored["v"] == TensorProto.FLOAT16
    wanted = run(proto, inputs())
    assert 0 < np.abs(run(found, inputs()) - wanted).max() < 5e-3 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("module", "name", "convert"),
    [
        (onnxruntime.quantization, "quantize_static", lambda p: to_int8(p, [inputs()], {})),
        (onnxruntime.transformers.float16, "convert_float_to_float16", to_half),
    ],
)
def test_what_the_tools_refuse_is_one_line(monkeypatch, module, name: str, convert) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("not\nthis one")

    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(
        RewriteError, match=r"^ONNX Runtime cannot (quantize|convert): not this one$"
    ):
        convert(network())
    assert logging.root.manager.disable == 0


def test_operator_sets_stay(monkeypatch) -> None:
    def upgrade(_: object, target: object, *__: object, **___: object) -> None:
        onnx.save(network(opset=18), target)

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", upgrade)
    with pytest.raises(RewriteError, match="with other operator sets"):
        to_int8(network(), [inputs()], {})


@pytest.mark.parametrize(
    ("alpha", "beta", "bias"), [(1.0, 1.0, (1, 6)), (1.0, 2.0, (6,)), (0.5, 1.0, (6,))]
)
def test_what_the_quantizer_breaks_off_at_stays_in_float(
    alpha: float, beta: float, bias: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 3, 2, 2), "w3": (1536, 6), "b3": bias, "w4": (6, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("ConvTranspose", ["a", "w2"], ["b"], group=2, strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["c"], alpha=alpha, beta=beta),
        helper.make_node("Gemm", ["c", "w4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(size=(32, 3, 8, 8)).astype(np.float32)
    found = to_int8(proto, [x], {})
    stored = {tensor.name for tensor in found.graph.initializer}
    in_float = [
        node.op_type
        for node in found.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[1] in stored
    ]
    assert in_float == ["ConvTranspose", "Gemm"]
    one, other = run(proto, x), run(found, x)
    assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
