"""A hardened graph is the original with bounds; whatever else was changed is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mmbm_onnx.evaluation.sameness import changed_node, changed_weight
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.types import Bounds

TEXT = """<ir_version: {ir}, opset_import: ["" : {opset}]>
net (float[N, 6] x) => (float[N, 3] y) <float[6, 5] w, float[5, 3] v{limits}> {{
    a = MatMul(x, w)
    first = Relu(a)
    second = {clip}
    y = MatMul(second, v)
}}"""
NESTED = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3] x) => (float[N, 3] y) <bool c = {{1}}> {{
    y = If(c) <
        then_branch = t () => (float[N, 3] p) {{ q = Relu(x) p = Neg(q) }},
        else_branch = e () => (float[N, 3] r) {{ s = Abs(x) r = Relu(s) }}
    >
}}""".replace("{{", "{").replace("}}", "}")


def model(opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    old = opset < 11
    clip = "Clip <min = 0.0, max = 6.0> (first)" if old else "Clip(first, low, high)"
    limits = "" if old else ", float low, float high"
    proto = onnx.parser.parse_model(TEXT.format(opset=opset, ir=ir, clip=clip, limits=limits))
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 5)), "v": rng.normal(size=(5, 3))}
    if not old:
        weights |= {"low": np.zeros(()), "high": np.asarray(6.0)}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in weights.items()
    )
    inputs = [info for info in proto.graph.input if ir < 4 or info.name == "x"]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto


def difference(original: onnx.ModelProto, hardened: onnx.ModelProto) -> str:
    sites = frozenset(site.tensor for site in find_sites(original).sites)
    assert sites
    return changed_weight(original, hardened) or changed_node(original, hardened, sites)


def bounded(original: onnx.ModelProto, shape: tuple[int, ...] = ()) -> onnx.ModelProto:
    sites = find_sites(original).sites
    bound = np.full(shape, 0.5, np.float32)
    return insert_bounds(original, sites, Bounds({site.tensor: bound for site in sites}))


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize(("opset", "ir"), [(9, 3), (9, 5), (17, 8)])
def test_bounds_alone_are_no_change(opset: int, ir: int, shape: tuple[int, ...]) -> None:
    original = model(opset, ir)
    assert difference(original, bounded(original, shape)) == ""
    assert difference(original, original) == ""


def test_bounds_in_subgraphs_are_none_either() -> None:
    original = onnx.parser.parse_model(NESTED)
    assert difference(original, bounded(original)) == ""


def test_names_of_nodes_do_not_count() -> None:
    hardened = bounded(model())
    for index, node in enumerate(hardened.graph.node):
        node.name = f"n{index}"
    assert difference(model(), hardened) == ""


def weight(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (tensor,) = [entry for entry in proto.graph.initializer if entry.name == name]
    return tensor


def node(proto: onnx.ModelProto, output: str) -> onnx.NodeProto:
    (found,) = [entry for entry in proto.graph.node if output in entry.output]
    return found


def last_bit(proto: onnx.ModelProto) -> None:
    raw = bytearray(weight(proto, "w").raw_data)
    raw[0] ^= 1
    weight(proto, "w").raw_data = bytes(raw)


def other_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.add().CopyFrom(weight(proto, "w"))
    proto.graph.initializer[-1].name = "w2"
    node(proto, "a").input[1] = "w2"


def no_weight(proto: onnx.ModelProto) -> None:
    weight(proto, "v").name = "gone"
    node(proto, "y").input[1] = "gone"


def other_operator(proto: onnx.ModelProto) -> None:
    node(proto, "first/mmbm_unbounded").op_type = "Abs"


def one_more_node(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(onnx.helper.make_node("Neg", ["y"], ["z"]))


def lower_limit(proto: onnx.ModelProto) -> None:
    bound = node(proto, "first")
    bound.op_type = "Clip"
    bound.input[:] = ["first/mmbm_unbounded", "low", "first/mmbm_bound"]


def bound_by_the_input(proto: onnx.ModelProto) -> None:
    node(proto, "first").op_type = "Min"
    node(proto, "first").input[:] = ["first/mmbm_unbounded", "a"]


def two_bounds(proto: onnx.ModelProto) -> None:
    node(proto, "first").op_type = "Min"
    node(proto, "first").input[:] = ["first/mmbm_unbounded", "first/mmbm_bound", "a"]


def relu6_from_below(proto: onnx.ModelProto) -> None:
    node(proto, "second").input[1] = "high"


def relu6_by_the_input(proto: onnx.ModelProto) -> None:
    node(proto, "second").input[2] = "a"


def unbounded_read(proto: onnx.ModelProto) -> None:
    node(proto, "second").input[0] = "first/mmbm_unbounded"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (last_bit, "weight 'w' is not the original's"),
        (other_weight, "the node that computes 'a'"),
        (no_weight, "weight 'v' of the original is missing"),
        (other_operator, "the node that computes 'first'"),
        (one_more_node, "5 nodes without its bounds, the original has 4"),
        (lower_limit, "the node that computes 'first'"),
        (bound_by_the_input, "the node that computes 'first'"),
        (two_bounds, "the node that computes 'first'"),
        (relu6_from_below, "the node that computes 'second'"),
        (relu6_by_the_input, "the node that computes 'second'"),
        (unbounded_read, "the node that computes 'second'"),
    ],
)
def test_every_other_change_is_told(change: Callable[[onnx.ModelProto], None], told: str) -> None:
    hardened = bounded(model())
    change(hardened)
    assert told in difference(model(), hardened)


def test_changes_in_subgraphs_and_attributes_are_told() -> None:
    original = onnx.parser.parse_model(NESTED)
    hardened = bounded(original)
    (branch,) = [
        entry.g for entry in hardened.graph.node[0].attribute if entry.name.startswith("t")
    ]
    (inner,) = [entry for entry in branch.node if entry.op_type == "Neg"]
    inner.op_type = "Abs"
    assert "the node that computes 'p'" in difference(original, hardened)
    inner.op_type = "Neg"
    branch.initializer.append(onnx.helper.make_tensor("extra", TensorProto.FLOAT, [1], [1.0]))
    assert "a subgraph of the node that computes 'y'" in difference(original, hardened)

    hardened = bounded(model(9, 5), (5,))
    node(hardened, "second/mmbm_unbounded").attribute[0].f = -1.0
    assert "the node that computes 'second'" in difference(model(9, 5), hardened)


def test_another_encoding_of_the_same_weight_is_the_same() -> None:
    hardened = bounded(model())
    tensor = weight(hardened, "w")
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(
        onnx.helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel().tolist())
    )
    assert not tensor.HasField("raw_data")
    assert difference(model(), hardened) == ""


def test_other_local_functions_are_told() -> None:
    hardened = bounded(model())
    hardened.functions.add().name = "f"
    assert "local functions" in difference(model(), hardened)
