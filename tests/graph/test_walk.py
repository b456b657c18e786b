"""The small walks over protos."""

from __future__ import annotations

import numpy as np
import onnx
from graph_models import parse
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.graph.walk import (
    ancestors,
    attribute,
    constant_values,
    consumed,
    graphs,
    producers,
    shape_of,
    standard_opset,
    tensors,
    value_types,
)

BRANCH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, float[N,4] z, bool c) => (float[N,4] y) <float[4] w> {
    k = Constant <value = float[1] {2.0}> ()
    m = Mul (x, w)
    unused = Neg (z)
    y = If (c) <
        then_branch = t () => (a) { p = Mul (m, k) a = Neg (p) },
        else_branch = e () => (b) { b = Neg (x) }
    >
}
"""


def test_graphs_are_named_by_their_nodes() -> None:
    proto = parse(BRANCH)
    assert [scope for scope, _ in graphs(proto.graph)] == ["", "If/then_branch", "If/else_branch"]
    proto.graph.node[-1].name = "pick"
    assert [scope for scope, _ in graphs(proto.graph)][1:] == [
        "pick/then_branch",
        "pick/else_branch",
    ]


def test_tensors_are_found_wherever_they_hide() -> None:
    def tensor(name: str) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(1, np.float32), name)

    proto = parse(BRANCH)
    proto.graph.node[-1].attribute[0].g.initializer.append(tensor("branch"))
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor("values"), indices, [2]))
    sparse = helper.make_sparse_tensor(tensor("attribute_values"), indices, [2])
    proto.graph.node.append(helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    proto.graph.node.append(helper.make_node("Own", [], ["o"], many=[tensor("one"), tensor("two")]))
    proto.training_info.add().algorithm.initializer.append(tensor("training"))
    body = [helper.make_node("Constant", [], ["b"], value=tensor("function"))]
    function = helper.make_function("own", "f", [], ["b"], body, [helper.make_opsetid("", 17)])
    proto.functions.append(function)
    names = {found.name for found in tensors(proto)}
    assert names >= {
        "w",
        "branch",
        "values",
        "indices",
        "attribute_values",
        "one",
        "two",
        "training",
        "function",
    }
    assert len(list(tensors(proto))) == 11


def test_attributes() -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["c"], transB=1, alpha=0.5)
    assert attribute(node, "transB") == 1
    assert attribute(node, "alpha") == 0.5
    assert attribute(node, "beta") is None
    assert attribute(node, "beta", 1.0) == 1.0


def test_producers_leave_out_blank_names_and_subgraphs() -> None:
    proto = parse(BRANCH)
    proto.graph.node[1].output.append("")
    assert set(producers(proto.graph)) == {"k", "m", "unused", "y"}


def test_constants_of_every_form() -> None:
    graph = parse(BRANCH).graph
    for name, given in (
        ("f", {"value_float": 1.5}),
        ("i", {"value_int": 7}),
        ("fs", {"value_floats": [1.0, 2.0]}),
        ("is", {"value_ints": [3, 4]}),
    ):
        graph.node.append(helper.make_node("Constant", [], [name], **given))
    values = {
        name: numpy_helper.to_array(tensor) for name, tensor in constant_values(graph).items()
    }
    assert set(values) == {"w", "k", "f", "i", "fs", "is"}
    assert (values["f"].shape, values["f"].dtype, float(values["f"])) == ((), np.float32, 1.5)
    assert (values["i"].shape, values["i"].dtype, int(values["i"])) == ((), np.int64, 7)
    assert values["fs"].tolist() == [1.0, 2.0]
    assert values["is"].tolist() == [3, 4]


def test_the_standard_operator_set_has_two_names() -> None:
    assert standard_opset([helper.make_opsetid("", 17)]) == 17
    assert standard_opset([helper.make_opsetid("own", 1), helper.make_opsetid("ai.onnx", 9)]) == 9
    assert standard_opset([helper.make_opsetid("own", 1)]) is None


def test_shapes_have_none_for_any_length() -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3, None, 0, -1])
    assert shape_of(kind) == (None, 3, None, None, None)
    assert shape_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [])) == ()
    assert shape_of(helper.make_tensor_type_proto(TensorProto.FLOAT, None)) is None
    assert shape_of(helper.make_sequence_type_proto(kind)) is None
    assert shape_of(None) is None


def test_types_cover_weights() -> None:
    types = value_types(parse(BRANCH).graph)
    assert shape_of(types["w"]) == (4,)
    assert shape_of(types["x"]) == (None, 4)
    assert "m" not in types


def test_ancestors_go_through_what_branches_capture() -> None:
    proto = parse(BRANCH)
    assert ancestors(proto.graph, ["y"]) >= {"y", "c", "m", "k", "x", "w", "p"}
    assert not {"unused", "z"} & ancestors(proto.graph, ["y"])
    assert ancestors(proto.graph, ["m", ""]) == {"m", "x", "w"}


def test_a_node_consumes_what_its_branches_capture() -> None:
    assert consumed(parse(BRANCH).graph.node[-1]) == {"c", "m", "k", "x", "p", "a", "b"}
