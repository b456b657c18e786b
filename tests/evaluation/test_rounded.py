"""A graph in few bits against the one it was made of, and what a forged one gives away."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from shadow_models import network, shadowed, sites_and_bounds

from mmbm_onnx.evaluation.rounded import rounding_difference
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.shadow.cut import bare_logits, cut_at_logits
from mmbm_onnx.runtime.converting import to_half, to_int8


def plain() -> onnx.GraphProto:
    proto = network()
    sites, bounds = sites_and_bounds(proto)
    folded = fold_bounds(proto, sites, bounds, unscaled=("logits",)).proto
    return cut_at_logits(folded, find_interface(proto)).graph


def rounded(kind: str) -> onnx.GraphProto:
    shadow = shadowed(network(), kind).shadow
    assert shadow is not None
    return shadow.proto.graph


def weight(graph: onnx.GraphProto, part: str) -> onnx.TensorProto:
    (found,) = [tensor for tensor in graph.initializer if tensor.name == part]
    return found


def change(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    def apply(graph: onnx.GraphProto) -> None:
        tensor = weight(graph, name)
        old = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(how(old.copy()).astype(old.dtype), name))

    return apply


def one(step: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(values: np.ndarray) -> np.ndarray:
        values.ravel()[np.argmin(np.abs(values.astype(np.float64)).ravel())] += step
        return values

    return apply


def node_of(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    (found,) = [node for node in graph.node if output in node.output]
    return found


def reader_of(graph: onnx.GraphProto, source: str) -> onnx.NodeProto:
    (found,) = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == source]
    return found


def lower_scale(tensor: str, factor: float) -> Callable[[onnx.GraphProto], None]:
    def apply(graph: onnx.GraphProto) -> None:
        change(reader_of(graph, tensor).input[1], lambda scale: scale * factor)(graph)

    return apply


def raise_zero(graph: onnx.GraphProto) -> None:
    name = reader_of(graph, "second").input[2]
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.uint8(9), name))


def swap_inputs(graph: onnx.GraphProto) -> None:
    node = next(n for n in graph.node if n.op_type == "Add")
    node.input[1] = node.input[0]


def other_pads(graph: onnx.GraphProto) -> None:
    node = next(n for n in graph.node if n.op_type == "MaxPool")
    for entry in node.attribute:
        if entry.name == "strides":
            entry.ints[:] = [1, 1]


def one_more(graph: onnx.GraphProto) -> None:
    last = node_of(graph, "logits")
    last.output[0] = "almost"
    graph.node.append(helper.make_node("Neg", ["almost"], ["logits"]))


def limited(graph: onnx.GraphProto) -> None:
    last = node_of(graph, "logits")
    last.output[0] = "almost"
    graph.node.append(helper.make_node("Relu", ["almost"], ["logits"]))


def dequantized_otherwise(graph: onnx.GraphProto) -> None:
    quantize = reader_of(graph, "first")
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == quantize.output[0]:
            graph.initializer.append(numpy_helper.from_array(np.float32(3), "other_scale"))
            node.input[1] = "other_scale"


def coarse(graph: onnx.GraphProto) -> None:
    """All weights of a layer to 0, with steps so wide that they might be."""
    change("w1/mmbm_folded_quantized", np.zeros_like)(graph)
    change("w1/mmbm_folded_scale", lambda scale: scale * 1000)(graph)


def with_constant(kind: str) -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """A graph that adds a constant, which a quantizer stores as it does activations."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 3] y) <float[4, 3] w, float[3] b>
        { a = MatMul(x, w) y = Add(a, b) }
        """
    )
    del proto.graph.input[1:]
    rng = np.random.default_rng(0)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (4, 3)), ("b", (3,)))
    )
    x = rng.normal(size=(20, 4)).astype(np.float32)
    found = bare_logits(to_int8(proto, [x], {})) if kind == "int8" else to_half(proto)
    return proto.graph, found.graph


@pytest.mark.parametrize("kind", ["int8", "half"])
def test_a_constant_that_is_added_is_compared_too(kind: str) -> None:
    graph, found = with_constant(kind)
    assert rounding_difference(graph, found) == ""
    name = "b_quantized" if kind == "int8" else "b"
    assert weight(found, name).data_type == (
        onnx.TensorProto.UINT8 if kind == "int8" else onnx.TensorProto.FLOAT16
    )
    change(name, lambda values: values[::-1])(found)
    assert "weight 'b' is" in rounding_difference(graph, found)


def with_normalization() -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """A BatchNormalization in front of a sum, whose factors get one step, as a row of one."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 5, 4, 4] x) => (float[N, 5, 1, 1] y)
        {
            a = Conv <pads = [1, 1, 1, 1]> (x, w)
            n = BatchNormalization(a, scale, bias, mean, var)
            sum = Add(x, n)
            y = GlobalAveragePool(sum)
        }
        """
    )
    rng = np.random.default_rng(0)
    proto.graph.initializer.append(
        numpy_helper.from_array(rng.normal(size=(5, 5, 3, 3)).astype(np.float32), "w")
    )
    proto.graph.initializer.extend(
        numpy_helper.from_array(rng.uniform(0.5, 2, 5).astype(np.float32), name)
        for name in ("scale", "bias", "mean", "var")
    )
    x = rng.normal(size=(20, 5, 4, 4)).astype(np.float32)
    return proto.graph, bare_logits(to_int8(proto, [x], {})).graph


def test_one_step_for_a_row_is_that_of_the_whole() -> None:
    graph, found = with_normalization()
    assert numpy_helper.to_array(weight(found, "bias_quantized_scale")).shape == (1,)
    assert rounding_difference(graph, found) == ""
    change("bias_quantized", lambda values: values[::-1])(found)
    assert "weight 'bias' is" in rounding_difference(graph, found)
    graph, found = with_normalization()
    change("scale_scale", lambda step: 100 * step)(found)
    assert rounding_difference(graph, found) != ""


@pytest.mark.parametrize("kind", ["int8", "half"])
def test_what_was_made_of_it_differs_by_rounding_alone(kind: str) -> None:
    assert rounding_difference(plain(), rounded(kind)) == ""


def test_a_graph_is_itself() -> None:
    assert rounding_difference(plain(), plain()) == ""


def assert_told(kind: Any, forge: Any, told: str) -> None:
    graph = rounded(kind)
    forge(graph)
    found = rounding_difference(plain(), graph)
    assert re.search(told, found), found


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (change("w1/mmbm_folded_quantized", one(1)), "weight 'w1/mmbm_folded' is .* off"),
        (change("w2/mmbm_folded_quantized", one(-1)), "weight 'w2/mmbm_folded' is .* off"),
        (change("w4/mmbm_folded_quantized", one(1)), "weight 'w4/mmbm_folded' is .* off"),
        (change("b1/mmbm_folded_quantized", one(2)), "weight 'b1/mmbm_folded' is .* off"),
        (change("w1/mmbm_folded_scale", lambda s: s * 1.2), "has not the steps|is .* off"),
        (change("w1/mmbm_folded_scale", lambda s: s * np.nan), "not finite and positive"),
        (coarse, "coarser steps|has not the steps"),
        (lower_scale("first", 2), "upper limit of|as it is dequantized"),
        (lower_scale("second", 0.5), "upper limit of|as it is dequantized"),
        (raise_zero, "limit of 'second'"),
        (swap_inputs, "limit of 'first'|is read from another place"),
        (other_pads, "the node that computes .* is another one"),
        (one_more, "the node that computes 'logits' is another one"),
        (limited, "'logits' has the lower limit 0"),
        (dequantized_otherwise, "is not quantized as it is dequantized"),
    ],
)
def test_a_forged_int8_graph_is_told(forge: Any, told: str) -> None:
    assert_told("int8", forge, told)


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (change("w1/mmbm_folded", one(2e-3)), "weight 'w1/mmbm_folded' is .* off"),
        (change("b4/mmbm_folded", one(0.01)), "weight 'b4/mmbm_folded' is .* off"),
        (other_pads, "the node that computes .* is another one"),
        (one_more, "is another one"),
    ],
)
def test_a_forged_half_graph_is_told(forge: Any, told: str) -> None:
    assert_told("half", forge, told)


def test_a_limit_in_half_has_to_be_the_bound() -> None:
    graph = rounded("half")
    clip = node_of(graph, "first")
    assert clip.op_type == "Clip"
    change(clip.input[2], lambda limit: limit * 2)(graph)
    assert "the upper limit of" in rounding_difference(plain(), graph)


def test_infinite_and_missing_numbers_are_the_same_as_themselves() -> None:
    graph = onnx.parser.parse_graph(
        """
        g (float[N, 3] x) => (float[N, 3] y)
        <float[3] least = {-1, -1, -1}> { y = Max(x, least) }
        """
    )
    change("least", lambda _: np.array([-np.inf, np.nan, np.inf]))(graph)
    for exact in (False, True):
        assert rounding_difference(graph, graph, exact=exact) == ""
    other = onnx.GraphProto()
    other.CopyFrom(graph)
    change("least", lambda _: np.array([np.inf, np.nan, np.inf]))(other)
    for exact in (False, True):
        assert "weight 'least' is" in rounding_difference(graph, other, exact=exact)


def test_exactly_the_same_has_no_slack() -> None:
    graph, same = plain(), plain()
    assert rounding_difference(graph, same, exact=True) == ""
    for kind in ("half", "int8"):
        assert rounding_difference(graph, rounded(kind)) == ""
        assert rounding_difference(graph, rounded(kind), exact=True) != ""
    clip = next(node for node in same.node if node.op_type == "Clip")
    change(clip.input[2], lambda limit: limit * (1 + 2.0**-20))(same)
    assert rounding_difference(graph, same) == ""
    assert f"weight {clip.input[2]!r} is not the same" in rounding_difference(
        graph, same, exact=True
    )
