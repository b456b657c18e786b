"""Inferred types: right, complete where the file helps, and never what the file makes up."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import parse
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.modern import modernise
from mmbm_onnx.graph.walk import graphs, shape_of, value_types

# After the Reshape to x's own shape, opset 9 to 13 know nothing without help.
OLD = {
    9: """
        p = Pad <pads = [0, 0, 1, 1, 0, 0, 2, 2]> (k)
        s = Slice <starts = [0, 1], ends = [4, 5], axes = [2, 3]> (p)
        u = Upsample (s, scales)
        a, b = Split <axis = 1, split = [2, 4]> (u)
        r = ReduceSum <axes = [3], keepdims = 1> (b)
        q = Squeeze <axes = [3]> (r)
        y = Unsqueeze <axes = [1]> (q)""",
    11: """
        p = Pad (k, pads)
        s = Slice (p, starts, ends, axes)
        u = Resize (s, roi, scales)
        a, b = Split <axis = 1, split = [2, 4]> (u)
        r = ReduceSum <axes = [3], keepdims = 1> (b)
        q = Squeeze <axes = [3]> (r)
        y = Unsqueeze <axes = [1]> (q)""",
    13: """
        p = Pad (k, pads)
        s = Slice (p, starts, ends, axes)
        u = Resize (s, roi, scales)
        a, b = Split <axis = 1> (u, parts)
        r = ReduceSum <keepdims = 1> (b, three)
        q = Squeeze (r, three)
        y = Unsqueeze (q, one)""",
}
CONSTANTS = """float[4] scales = {1.0, 1.0, 2.0, 2.0}, float[0] roi = {},
    int64[8] pads = {0, 0, 1, 1, 0, 0, 2, 2}, int64[2] starts = {0, 1}, int64[2] ends = {4, 5},
    int64[2] axes = {2, 3}, int64[2] parts = {2, 4}, int64[1] three = {3}, int64[1] one = {1}"""


def old_model(opset: int) -> onnx.ModelProto:
    return parse(
        f'<ir_version: 4, opset_import: ["" : {opset}]> g (float[N,6,3,3] x) => (y) <{CONSTANTS}> '
        f"{{ d = Shape (x) f = Flatten (x) k = Reshape (f, d) {OLD[opset]} }}"
    )


@pytest.mark.parametrize("opset", sorted(OLD))
def test_shapes_behind_a_computed_reshape_are_inferred_for_old_models(opset: int) -> None:
    proto = old_model(opset)
    before = proto.SerializeToString()
    types = value_types(infer(proto).graph)
    assert proto.SerializeToString() == before
    expected = {
        "k": (None, 6, 3, 3),
        "p": (None, 6, 6, 6),
        "s": (None, 6, 4, 4),
        "u": (None, 6, 8, 8),
        "a": (None, 2, 8, 8),
        "b": (None, 4, 8, 8),
        "r": (None, 4, 8, 1),
        "q": (None, 4, 8),
        "y": (None, 1, 4, 8),
    }
    assert {name: shape_of(types.get(name)) for name in expected} == expected


def test_the_expected_shapes_are_those_that_a_run_has() -> None:
    proto = old_model(13)
    proto.graph.output[0].type.CopyFrom(
        helper.make_tensor_type_proto(TensorProto.FLOAT, [None] * 4)
    )
    (y,) = ReferenceEvaluator(proto).run(None, {"x": np.zeros((5, 6, 3, 3), np.float32)})
    assert y.shape == (5, 1, 4, 8)


def test_only_opsets_9_to_13_are_translated_and_only_in_a_copy() -> None:
    text = (
        '<ir_version: 3, opset_import: ["" : {0}]> '
        "g (float[N,4] x) => (float[N,4] y) {{ y = Relu (x) }}"
    )
    for opset in (7, 8, 14, 17):
        assert modernise(parse(text.format(opset))) is None
    proto = old_model(9)
    modern = modernise(proto)
    assert modern is not None
    assert modern.opset_import[0].version == 14
    assert proto.opset_import[0].version == 9
    assert [node.op_type for node in proto.graph.node].count("Upsample") == 1
    assert modernise(onnx.ModelProto()) is None


def test_stale_types_yield_and_missing_ones_are_filled_in() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[N,4] x) => (float[N,C] y) '
        "{ a = Neg (x) b = own.Thing (a) y = Neg (b) }"
    )
    for name, kind, shape in (
        ("a", TensorProto.DOUBLE, [1, 9, 9]),
        ("b", TensorProto.FLOAT, ["N", 7]),
    ):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, kind, shape))
    types = value_types(infer(proto).graph)
    assert types["a"].tensor_type.elem_type == TensorProto.FLOAT
    assert shape_of(types["a"]) == (None, 4)
    assert shape_of(types["b"]) == (None, 7)


def test_a_stale_batch_does_not_replace_a_named_one() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) '
        "{ a = Neg (x) y = Neg (a) }"
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 4]))
    dims = value_types(infer(proto).graph)["a"].tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 4]


def test_branches_are_inferred_too() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x, bool c) => (y) { z = '
        "Neg (x) y = If (c) <"
        "then_branch = t () => (a) { k = Transpose (z) a = Neg (k) },"
        "else_branch = e () => (b) { k = Identity (z) b = Neg (k) }> }"
    )
    _, then, other = (value_types(graph) for _, graph in graphs(infer(proto).graph))
    assert (shape_of(then["k"]), shape_of(other["k"])) == ((4, None), (None, 4))


def test_large_weights_are_not_copied() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (y) '
        "<float[64,3,3,3] w> { y = Conv (x, w) }"
    )
    light = infer(proto)
    assert light.ByteSize() < proto.ByteSize() / 4
    assert shape_of(value_types(light.graph)["y"]) == (None, 64, 6, 6)


def test_what_cannot_be_inferred_at_all_keeps_its_declared_types() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { '
        "y = Neg (x) }"
    )
    del proto.opset_import[:]
    assert shape_of(value_types(infer(proto).graph)["y"]) == (None, 4)
