from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper
from rewriting_helpers import parse, run, serialized

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.surgeon import Surgeon, captures

BACKEND = Path(onnx.__file__).parent / "backend" / "test" / "data"


def assert_survives(model: onnx.ModelProto) -> None:
    before = serialized(model)
    assert serialized(Surgeon(model).export()) == before
    assert serialized(model) == before


@pytest.mark.parametrize("path", sorted((BACKEND / "light").glob("*.onnx")), ids=lambda p: p.stem)
def test_an_unedited_light_model_survives_byte_for_byte(path):
    assert_survives(onnx.load(path))


def test_unedited_models_of_the_onnx_wheel_survive_byte_for_byte():
    paths = [path for path in BACKEND.rglob("*.onnx") if path.parent.name != "light"]
    assert len(paths) > 50
    for path in paths:
        assert_survives(onnx.load(path, load_external_data=False))


def test_unedited_operator_cases_survive_byte_for_byte():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        models = [case.model for case in collect_testcases(None)]
    standard = [model for model in models if any(not o.domain for o in model.opset_import)]
    assert len(standard) > 1000
    for model in standard[::2]:
        assert_survives(model)


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_unedited_torch_export_survives_byte_for_byte(dynamo, tmp_path):
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU())
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (torch.zeros(1, 1, 8, 8),), path, dynamo=dynamo, verbose=False
        )
    assert_survives(onnx.load(path))


def test_everything_graphsurgeon_drops_survives():
    body = parse("g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }").graph
    node = body.node[0]
    node.doc_string = "a node"
    node.metadata_props.add(key="k", value="v")
    body.doc_string = "a graph"
    body.metadata_props.add(key="graph", value="too")
    body.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unused"))
    body.initializer[0].doc_string = "unused, and documented"
    body.quantization_annotation.add(tensor_name="y")
    info = helper.make_tensor_value_info("unused_info", TensorProto.FLOAT, ["N"])
    info.doc_string = "value"
    info.type.denotation = "IMAGE"
    body.value_info.append(info)
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64)))
    body.sparse_initializer.append(sparse)
    odd = helper.make_node("Odd", ["x"], ["odd"], domain="custom")
    odd.attribute.add(name="bytes", type=onnx.AttributeProto.STRING, s=b"\xff\xfe")
    odd.attribute.add(name="none", type=onnx.AttributeProto.INTS)
    odd.attribute.add(name="kind", type=onnx.AttributeProto.TYPE_PROTO).tp.CopyFrom(info.type)
    body.node.append(odd)
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("custom", 3)]
    )
    for overload in ("one", "two"):
        function = helper.make_function(
            "custom",
            "F",
            ["a"],
            ["b"],
            [helper.make_node("Relu", ["a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
        function.overload = overload
        model.functions.append(function)
    model.metadata_props.add(key="author", value="somebody")
    model.domain, model.model_version, model.doc_string = "example.org", 7, "a model"
    model.producer_name, model.producer_version = "maker", "1.2"
    assert_survives(model)


def test_initializers_that_are_inputs_survive():
    model = parse("g (float[N, 2] x, float[2] w) => (float[N, 2] y) { y = Mul(x, w) }", ir=3)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    assert_survives(model)


def test_blank_and_repeated_node_names_survive():
    model = parse("g (float[N] x) => (float[N] y) { a = Relu(x) b = Relu(a) y = Relu(b) }")
    model.graph.node[0].name = model.graph.node[1].name = "same"
    assert_survives(model)


NESTED = """
g (float[N] x, bool c, bool d) => (float[N] y) {
    a = Relu(x)
    y = If(c) <
        then_branch = t () => (float[N] p) { q = Relu(a) p = Add(q, w) },
        else_branch = e () => (float[N] p) {
            p = If(d) <
                then_branch = tt () => (float[N] r) { r = Neg(a) },
                else_branch = ee () => (float[N] r) { r = Add(a, x) }
            >
        }
    >
}
"""


def nested() -> onnx.ModelProto:
    return parse(NESTED, w=np.ones(1, np.float32))


def test_nested_subgraphs_survive():
    assert_survives(nested())


def test_captures_are_outer_names_only():
    surgeon = Surgeon(nested())
    assert captures(surgeon.graph.nodes[1]) == ["a", "w", "d", "x"]


def test_a_subgraph_that_hands_on_an_outer_value_follows_its_renaming():
    model = parse(
        """
        g (float[N] x, bool c) => (float[N] y) {
            a = Relu(x)
            y = If(c) <
                then_branch = t () => (float[N] a) { },
                else_branch = e () => (float[N] b) { b = Neg(a) }
            >
        }
        """
    )
    surgeon = Surgeon(model)
    surgeon.graph.nodes[0].outputs[0].name = "renamed"
    branches = {a.name: a.g for a in surgeon.export().graph.node[1].attribute}
    assert branches["then_branch"].output[0].name == "renamed"
    assert list(branches["else_branch"].node[0].input) == ["renamed"]


def test_a_copied_node_reads_what_it_is_told_in_its_subgraphs_too():
    model = nested()
    surgeon = Surgeon(model)
    node = surgeon.graph.nodes[1]
    other = surgeon.variable("other")
    surgeon.graph.nodes.append(
        gs.Node("Neg", name="neg", inputs=[surgeon.graph.inputs[0]], outputs=[other])
    )
    copy = surgeon.copy_node(node, "copy/", {"a": other})
    surgeon.graph.nodes.append(copy)
    surgeon.append_output(
        copy.outputs[0], helper.make_tensor_value_info("copy/y", TensorProto.FLOAT, ["N"])
    )
    out = surgeon.export()
    onnx.checker.check_model(out, full_check=True)
    assert [serialized(n) for n in out.graph.node[:2]] == [serialized(n) for n in model.graph.node]
    assert [info.name for info in out.graph.output] == ["y", "copy/y"]
    x = np.asarray([-1.0, 2.0], np.float32)  # a = Relu(x) = [0, 2], other = Neg(x) = [1, -2]
    for c, d, y, copied in (
        (True, True, [1, 3], [2, 1]),
        (False, True, [0, -2], [-1, 2]),
        (False, False, [-1, 4], [0, 0]),
    ):
        results = run(out, x=x, c=np.asarray(c), d=np.asarray(d))
        assert np.array_equal(results[0], y) and np.array_equal(results[1], copied)


def test_an_attribute_put_on_an_original_node_overrides_that_one_alone():
    model = parse("g (float[N] x) => (float[N] y) { y = Clip<min=0.0, max=6.0>(x) }", opset=10)
    surgeon = Surgeon(model)
    surgeon.graph.nodes[0].attrs["max"] = 2.0
    node = surgeon.export().graph.node[0]
    assert [(a.name, a.f) for a in node.attribute] == [("min", 0.0), ("max", 2.0)]


@pytest.mark.parametrize(("ir", "initializers", "nodes"), [(3, 0, 3), (4, 1, 2)])
def test_a_new_constant_is_a_node_where_initializers_must_be_inputs(ir, initializers, nodes):
    surgeon = Surgeon(parse("g (float[N] x) => (float[N] y) { y = Relu(x) }", ir=ir, opset=8))
    y = surgeon.graph.outputs[0]
    surgeon.graph.outputs[0] = surgeon.variable("z")
    constant = surgeon.constant("y", np.asarray([2.0], np.float32))
    assert constant.name == "y_1"
    surgeon.graph.nodes.append(
        gs.Node("Mul", name="m", inputs=[y, constant], outputs=[surgeon.graph.outputs[0]])
    )
    out = surgeon.export()
    assert (len(out.graph.initializer), len(out.graph.node)) == (initializers, nodes)
    assert len(out.graph.input) == 1


def test_a_model_without_the_standard_operators_is_refused():
    model = parse("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.opset_import[0].domain = "custom"
    with pytest.raises(RewriteError, match="standard operator set"):
        Surgeon(model)


def test_a_list_of_graphs_is_refused_by_node_and_attribute():
    model = nested()
    odd = helper.make_node("Odd", ["x"], ["odd"], name="strange", domain="custom")
    odd.attribute.add(name="bodies", type=onnx.AttributeProto.GRAPHS).graphs.add().name = "b"
    model.graph.node.append(odd)
    with pytest.raises(RewriteError, match=r"'strange'.*'bodies'"):
        Surgeon(model)
