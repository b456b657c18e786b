"""Local functions: inlined where activations hide in them, left alone elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import parse, tensor_names
from onnx.reference import ReferenceEvaluator

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.sites import find_sites

HEAD = '<ir_version: 10, opset_import: ["" : 17, "own" : 1]> g '
IMPORT = '<domain: "own", opset_import: ["" : 17, "own" : 1]>'

NESTED = (
    HEAD + "(float[N,4] x) => (float[N,3] y) <float[4,4] w, float[4,3] v> {"
    "  a = MatMul (x, w) b = own.outer (a) c = own.outer (b) d = own.scale (c) y = MatMul (d, v) } "
    f"{IMPORT} inner (a) => (b) {{ m = Relu (a) b = Add (m, a) }} "
    f"{IMPORT} outer (a) => (b) {{ k = own.inner (a) b = own.inner (k) }} "
    f"{IMPORT} scale (a) => (b) {{ b = Add (a, a) }}"
)


def answers(proto: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    (y,) = ReferenceEvaluator(proto).run(None, {"x": x})
    return y


def test_nested_functions_are_inlined_at_every_call() -> None:
    proto = parse(NESTED)
    before = proto.SerializeToString()
    inlined, names = inline_activation_functions(proto)
    assert names == ("own::inner", "own::outer")
    assert proto.SerializeToString() == before
    onnx.checker.check_model(inlined)
    assert len(find_sites(inlined).sites) == 4
    assert len(set(tensor_names(find_sites(inlined).sites))) == 4
    assert find_sites(inlined).uncovered == ()
    np.testing.assert_array_equal(answers(inlined), answers(proto))


def test_what_is_not_inlined_stays_as_it_is() -> None:
    proto = parse(NESTED)
    proto.producer_name = "somebody"
    proto.metadata_props.add(key="k", value="v")
    inlined, _ = inline_activation_functions(proto)
    assert [(f.domain, f.name) for f in inlined.functions] == [("own", "scale")]
    assert [t.SerializeToString() for t in inlined.graph.initializer] == [
        t.SerializeToString() for t in proto.graph.initializer
    ]
    assert list(inlined.graph.input) == list(proto.graph.input)
    assert list(inlined.graph.output) == list(proto.graph.output)
    assert list(inlined.metadata_props) == list(proto.metadata_props)
    assert list(inlined.opset_import) == list(proto.opset_import)
    assert (inlined.ir_version, inlined.producer_name) == (10, "somebody")


def test_models_without_hidden_activations_are_returned_themselves() -> None:
    plain = parse(HEAD + "(float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    assert inline_activation_functions(plain) == (plain, ())
    assert inline_activation_functions(plain)[0] is plain
    harmless = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { y = own.f (x) } "
        f"{IMPORT} f (a) => (b) {{ b = own.Relu (a) }} {IMPORT} Relu (a) => (b) {{ b = Neg (a) }}"
    )
    assert inline_activation_functions(harmless)[0] is harmless


def test_functions_called_from_and_holding_subgraphs() -> None:
    proto = parse(
        HEAD + "(float[N,4] x, bool c) => (float[N,4] y) { y = If (c) <"
        "then_branch = t () => (a) { a = own.f (x, c) }, else_branch = e () => (b) { b "
        "= Neg (x) }> } "
        f"{IMPORT} f (x, c) => (y) {{ y = If (c) <"
        "then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }> }"
    )
    inlined, names = inline_activation_functions(proto)
    assert names == ("own::f",)
    onnx.checker.check_model(inlined)
    (site,) = find_sites(inlined).sites
    assert site.scope.endswith("then_branch")


def test_operators_only_a_function_imports_are_imported_afterwards() -> None:
    proto = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { y = own.f (x) } "
        '<domain: "own", opset_import: ["" : 17, "ai.onnx.ml" : 3]> '
        "f (a) => (b) { m = Relu (a) b = ai.onnx.ml.Normalizer (m) }"
    )
    inlined, _ = inline_activation_functions(proto)
    onnx.checker.check_model(inlined)
    assert {entry.domain for entry in inlined.opset_import} == {"", "own", "ai.onnx.ml"}


def test_functions_of_another_operator_set_are_refused_in_one_line() -> None:
    proto = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { y = own.f (x) } "
        '<domain: "own", opset_import: ["" : 18]> f (a) => (b) { b = Relu (a) }'
    )
    with pytest.raises(ModelError, match="own::f") as caught:
        inline_activation_functions(proto)
    assert "\n" not in str(caught.value)


def test_functions_in_a_circle_are_refused() -> None:
    proto = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { y = own.f (x) } "
        f"{IMPORT} f (a) => (b) {{ m = Relu (a) b = own.h (m) }} {IMPORT} h (a) => (b) "
        f"{{ b = own.f (a) }}"
    )
    with pytest.raises(ModelError, match="circle"):
        inline_activation_functions(proto)


def test_functions_that_stand_for_too_many_nodes_are_refused() -> None:
    levels = " ".join(
        f"{IMPORT} f{n} (a) => (b) {{ m = own.f{n - 1} (a) b = own.f{n - 1} (m) }}"
        for n in range(1, 40)
    )
    proto = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { y = own.f39 (x) } "
        f"{IMPORT} f0 (a) => (b) {{ b = Relu (a) }} {levels}"
    )
    with pytest.raises(ModelError, match="nodes"):
        inline_activation_functions(proto)


@pytest.mark.parametrize(
    "body",
    [
        "z = Constant <value_float = 0.0> () b = Max (a, z)",
        "z = Constant <value_float = 0.0> () g = Greater (a, z) b = Where (g, a, z)",
        "s = Abs (a) b = Add (a, s)",
    ],
)
def test_functions_with_activations_that_are_written_out_are_inlined(body: str) -> None:
    proto = parse(
        f"""
        <ir_version: 9, opset_import: ["" : 17, "my" : 1]>
        g (float[N,4] x) => (float[N,4] y) {{ h = my.act (x) y = Neg (h) }}
        <domain: "my", opset_import: ["" : 17]> act (a) => (b) {{ {body} }}
        """
    )
    inlined, names = inline_activation_functions(proto)
    assert names == ("my::act",)
    assert [site.kind for site in find_sites(inlined).sites] == ["Relu"]
