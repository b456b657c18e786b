"""Which activations follow which."""

from __future__ import annotations

import onnx
import onnx.parser

from mmbm_onnx.graph.flow import flow_between


def parsed(body: str, inputs: str = "float[N, 2] x") -> onnx.GraphProto:
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> net ({inputs}) => (float[N, 2] y) {{ {body} }}'
    )
    return onnx.parser.parse_model(text).graph


def named(body: str, *chosen: str, end: str = "y") -> tuple[tuple[str, ...], set[str]]:
    flow = flow_between(parsed(body), "x", end, chosen)
    return flow.tensors, {f"{flow.tensors[i]}>{flow.tensors[j]}" for i, j in flow.edges}


def test_a_chain_is_a_chain_whatever_lies_between() -> None:
    tensors, edges = named("n = Neg(x) a = Relu(n) m = Neg(a) b = Relu(m) y = Neg(b)", "a", "b")
    assert tensors == ("x", "a", "b", "y")
    assert edges == {"x>a", "a>b", "b>y"}


def test_a_residual_connection_passes_what_it_passes() -> None:
    body = "a = Relu(x) b = Relu(a) c = Neg(b) s = Add(a, c) d = Relu(s) y = Neg(d)"
    assert named(body, "a", "b", "d")[1] == {"x>a", "a>b", "a>d", "b>d", "d>y"}
    assert named(body, "b", "d")[1] == {"x>b", "x>d", "b>d", "d>y"}


def test_tensors_of_branches_lie_where_their_node_is() -> None:
    body = """
        a = Relu(x) h = ReduceMax <keepdims = 0> (x) z = Sub(h, h) t = Greater(h, z)
        o = If (t) <
            then_branch = yes () => (float[N, 2] p) { p = Relu(a) },
            else_branch = no () => (float[N, 2] q) { q = Neg(a) }
        >
        c = Relu(o) y = Neg(c)
    """
    tensors, edges = named(body, "a", "p", "c")
    assert tensors == ("x", "a", "p", "c", "y")
    # The condition comes from the input, the branches from a, with and without p.
    assert edges == {"x>a", "a>p", "p>c", "a>c", "x>c", "c>y"}


def test_what_leads_elsewhere_has_no_edge_to_the_end_and_the_end_is_last() -> None:
    body = "y = Neg(x) late = Relu(y)"
    tensors, edges = named(body, "late", "missing")
    assert tensors == ("x", "late", "y")
    assert edges == {"x>y"}


def test_the_end_may_be_an_activation_itself() -> None:
    assert named("y = Relu(x)", "y") == (("x", "y"), {"x>y"})
