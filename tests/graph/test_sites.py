"""Sites: every activation is either bounded or named with the reason why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graph_models import classifier, export, parse, tensor_names
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mmbm_onnx.graph.sites import SiteReport, find_sites
from mmbm_onnx.types import Site

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def sites_of(text: str, logits: str | None = None) -> SiteReport:
    proto = parse(HEAD + text)
    before = proto.SerializeToString()
    report = find_sites(proto, logits=logits)
    assert proto.SerializeToString() == before
    return report


def reason(report: SiteReport, tensor: str) -> str:
    (entry,) = [entry for entry in report.uncovered if entry.tensor == tensor]
    return entry.reason


def clip_reason(before: str, clip: str, after: str = "", weights: str = "") -> str | None:
    """Why the Clip whose output is q takes no bound, or None when it does."""
    given = "float low = {0.0}, float high = {6.0}" + (f", {weights}" if weights else "")
    report = sites_of(f"(float[N,3,8,8] x) => (y) <{given}> {{ {before} {clip} {after} }}")
    if "q" in tensor_names(report.sites):
        return None
    return reason(report, "q")


def test_a_relu_is_a_site_with_all_that_is_known() -> None:
    report = find_sites(classifier(), logits="y")
    assert report.sites == (Site("r", "Relu", np.dtype(np.float32), 4, 1, 4),)
    assert report.uncovered == ()


def test_sites_come_in_graph_order_with_blank_and_repeated_node_names() -> None:
    proto = parse(
        HEAD + "(float[N,4] x) => (float[N,4] y) { b = Relu (x) a = Relu (b) y = Relu (a) }"
    )
    for node in proto.graph.node:
        node.name = ""
    assert tensor_names(find_sites(proto).sites) == ["b", "a", "y"]
    for node in proto.graph.node:
        node.name = "same"
    assert tensor_names(find_sites(proto).sites) == ["b", "a", "y"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.FLOAT, "float32"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.BFLOAT16, "bfloat16"),
    ],
)
def test_element_types(kind: int, dtype: str) -> None:
    info = helper.make_tensor_value_info("x", kind, ["N", 4])
    out = helper.make_tensor_value_info("y", kind, ["N", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [info], [out])
    (site,) = find_sites(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    ).sites
    assert site.dtype.name == dtype


def test_integer_relus_take_no_bound() -> None:
    report = sites_of(
        "(float[N,4] x) => (y) { i = Cast <to = 6> (x) r = Relu (i) y = Cast <to = 1> (r) }"
    )
    assert report.sites == ()
    assert reason(report, "r") == "its element type is not floating point"


def test_behind_an_unknown_operator_the_type_is_that_of_the_whole_model() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float16[N,4] x) => (y) {0} '
        "{{ u = own.Thing (x) y = Relu (u) {1} }}"
    )
    (site,) = find_sites(parse(text.format("", ""))).sites
    assert (site.dtype, site.rank, site.channel_axis) == (np.dtype(np.float16), None, None)
    mixed = find_sites(parse(text.format("<float k = {1.0}>", "z = Neg (k)")))
    assert reason(mixed, "y") == "its element type cannot be told"


def test_what_the_logits_do_not_need_takes_no_bound() -> None:
    report = sites_of(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Relu (x) y = Neg (a) z = Relu (x) }",
        "y",
    )
    assert tensor_names(report.sites) == ["a"]
    assert reason(report, "z") == "the logits do not depend on it"


def test_the_logits_themselves_take_no_bound() -> None:
    text = "(float[N,4] x) => (float[N,4] y) { a = Relu (x) y = Relu (a) }"
    report = sites_of(text, "y")
    assert tensor_names(report.sites) == ["a"]
    assert reason(report, "y") == "it carries the logits"
    assert tensor_names(sites_of(text).sites) == ["a", "y"]


@pytest.mark.parametrize("op", ["Elu", "LeakyRelu", "Selu", "Softplus", "HardSwish", "Mish"])
def test_other_activations_take_bounds(op: str) -> None:
    report = sites_of(f"(float[N,4] x) => (float[N,4] y) {{ y = {op} (x) }}")
    assert [(s.tensor, s.kind, s.upper, s.written_out) for s in report.sites] == [
        ("y", op, None, None)
    ]
    assert report.uncovered == ()


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "HardSigmoid", "Softsign"])
def test_activations_with_limits_are_named(op: str) -> None:
    report = sites_of(f"(float[N,4] x) => (float[N,4] y) {{ y = {op} (x) }}")
    assert reason(report, "y") == "limited by its own form"


def test_relus_of_other_domains_are_not_ours() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[N,4] x) => '
        "(float[N,4] y) {y = own.Relu (x)}"
    )
    assert find_sites(parse(text)) == SiteReport((), ())


# Clips


@pytest.mark.parametrize(
    "clip",
    [
        "q = Clip (x, low, high)",
        "l = Identity (low) h = Identity (high) q = Clip (x, l, h)",
        "h = Cast <to = 1> (big) q = Clip (x, low, h)",
        "h = Constant <value = float {6.0}> () q = Clip (x, low, h)",
        "h = Constant <value_float = 6.0> () q = Clip (x, low, h)",
        "i = Identity (x) q = Clip (i, low, high)",
        "s = Sigmoid (x) q = Clip (s, low, high)",
    ],
)
def test_a_clip_from_0_to_6_is_a_relu6(clip: str) -> None:
    report = sites_of(
        f"(float[N,3,8,8] x) => (y) <float low = {{0.0}}, float high = {{6.0}}, double "
        f"big = {{6.0}}> {{ {clip} y = Neg (q) }}"
    )
    (site,) = report.sites
    assert (site.tensor, site.kind, site.upper) == ("q", "Clip", 6.0)


def test_limits_as_attributes_of_old_operator_sets() -> None:
    for opset in (6, 9, 10):
        text = f'<ir_version: 4, opset_import: ["" : {opset}]> g (float[N,4] x) => (float[N,4] y)'
        (site,) = find_sites(parse(text + "{ y = Clip <min = 0.0, max = 6.0> (x) }")).sites
        assert (site.kind, site.upper) == ("Clip", 6.0)
        (site,) = find_sites(parse(text + "{ y = Clip <min = 0.0> (x) }")).sites
        assert (site.kind, site.upper) == ("Clip", None)
        assert find_sites(parse(text + "{ y = Clip <max = 6.0> (x) }")).sites == ()


def test_limits_from_the_graph_around_a_branch() -> None:
    report = sites_of(
        "(float[N,4] x, bool c) => (float[N,4] y) <float low = {0.0}, float high = "
        "{6.0}> { y = If (c) <"
        "then_branch = t () => (a) { a = Clip (x, low, high) },"
        "else_branch = e () => (b) { b = Neg (x) }> }"
    )
    assert tensor_names(report.sites) == ["a"]


def test_an_open_clip_is_a_relu_without_an_upper_limit() -> None:
    (site,) = sites_of("(float[N,4] x) => (y) <float low = {0.0}> { y = Clip (x, low) }").sites
    assert (site.kind, site.upper) == ("Clip", None)
    proto = parse(
        HEAD + "(float[N,4] x) => (y) <float low = {0.0}, float high = {1.0}> { y = Clip (x, "
        "low, high) }"
    )
    for value in (np.inf, np.finfo(np.float32).max):
        proto.graph.initializer[1].CopyFrom(
            numpy_helper.from_array(np.float32(value).reshape(()), "high")
        )
        (site,) = find_sites(proto).sites
        assert site.upper is None
    proto.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.float32(np.nan).reshape(()), "high")
    )
    assert "not above 0" in reason(find_sites(proto), "y")


@pytest.mark.parametrize(
    ("weights", "clip", "expected"),
    [
        ("float a = {-1.0}, float b = {1.0}", "q = Clip (x, a, b)", "lower limit is not 0"),
        ("float b = {6.0}", "q = Clip (x, , b)", "lower limit is not 0"),
        ("float b = {0.0}", "q = Clip (x, low, b)", "not above 0"),
        ("float b = {-2.0}", "q = Clip (x, low, b)", "not above 0"),
        ("float b = {1.0}", "q = Clip (x, low, b)", "a gate"),
        ("float[2] b = {6.0, 6.0}", "q = Clip (x, low, b)", "not constants"),
        ("", "b = ReduceMax <keepdims = 0> (x) q = Clip (x, low, b)", "not constants"),
    ],
)
def test_other_clips_are_named_with_the_reason(weights: str, clip: str, expected: str) -> None:
    found = clip_reason("", clip, "y = Neg (q)", weights)
    assert found is not None
    assert expected in found


THREE = (
    "float three = {3.0}, float six = {6.0}, float sixth = {0.16666667}, float neg "
    "= {-3.0}, float two = {2.0}"
)


@pytest.mark.parametrize(
    ("before", "clip", "after"),
    [
        ("a = Add (x, three)", "q = Clip (a, low, high)", "y = Div (q, six)"),
        ("a = Add (three, x)", "q = Clip (a, low, high)", "y = Mul (q, sixth)"),
        ("a = Add (x, three)", "q = Clip (a, low, high)", "m = Mul (x, q) y = Div (m, six)"),
        ("a = Sub (x, neg)", "q = Clip (a, low, high)", "y = Neg (q)"),
        ("a = Add (x, three) i = Identity (a)", "q = Clip (i, low, high)", "y = Mul (x, q)"),
        (
            "k = Constant <value_float = 3.0> () a = Add (x, k)",
            "q = Clip (a, low, high)",
            "y = Mul (x, q)",
        ),
        (
            "k = Identity (three) a = Add (x, k) i = Cast <to = 1> (a)",
            "q = Clip (i, low, high)",
            "y = Mul (x, q)",
        ),
        # the addition folded into a convolution's bias
        ("", "q = Clip (x, low, high)", "y = Div (q, six)"),
        ("", "q = Clip (x, low, high)", "i = Identity (q) y = Mul (sixth, i)"),
        ("a = Sigmoid (x)", "q = Clip (a, low, high)", "y = Mul (q, x)"),
        ("a = Sigmoid (x)", "q = Clip (a, low, high)", "i = Identity (q) y = Mul (a, i)"),
    ],
)
def test_gates_are_never_touched(before: str, clip: str, after: str) -> None:
    found = clip_reason(before, clip, after, THREE)
    assert found is not None
    assert "gate" in found


@pytest.mark.parametrize(
    "after",
    [
        "y = Mul (q, two)",
        "s = Sigmoid (q) y = Mul (q, s)",
        "y = Mul (q, q)",
        "y = Add (q, x)",
        "y = Div (q, two)",
        "y = Div (two, q)",
    ],
)
def test_a_relu6_may_be_multiplied_by_what_comes_after_it(after: str) -> None:
    assert clip_reason("a = Sigmoid (x)", "q = Clip (a, low, high)", after, THREE) is None


def test_a_gate_made_of_relu_and_min() -> None:
    given = "<float three = {3.0}, float six = {6.0}>"
    report = sites_of(
        f"(float[N,4] x) => (y) {given} {{ a = Add (x, three) r = Relu (a) m = Min (r, "
        f"six) y = Mul (x, m) }}"
    )
    assert [(s.tensor, s.kind, s.written_out) for s in report.sites] == [("y", "HardSwish", "Mul")]
    assert "gate" in reason(report, "r")
    report = sites_of(
        f"(float[N,4] x) => (y) {given} {{ a = Add (x, three) r = Relu (a) y = Mul (x, r) }}"
    )
    assert tensor_names(report.sites) == ["r"]


class Block(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm, self.act, self.last = nn.BatchNorm2d(4), act, nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.one(x)))
        x = self.act(self.two(x))
        return self.last(x.mean((2, 3)))


class ByHand(nn.Module):
    def __init__(self, swish: bool) -> None:
        super().__init__()
        self.swish = swish

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = nn.functional.relu6(x + 3) / 6
        return x * gate if self.swish else gate


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 9), (False, 11), (False, 13), (True, None)])
def test_the_relu6_of_mobile_networks_is_found(dynamo: bool, opset: int | None) -> None:
    proto = export(Block(nn.ReLU6()), torch.randn(2, 3, 8, 8), dynamo=dynamo, opset=opset)
    report = find_sites(proto)
    assert [(s.kind, s.upper, s.channel_axis, s.channels) for s in report.sites] == [
        ("Clip", 6.0, 1, 4)
    ] * 2
    assert report.uncovered == ()


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 9), (False, 11), (False, 13), (True, None)])
@pytest.mark.parametrize("act", [nn.Hardsigmoid(), ByHand(False)])
def test_the_gates_of_mobile_networks_are_left_alone(
    act: nn.Module, dynamo: bool, opset: int | None
) -> None:
    proto = export(Block(act), torch.randn(2, 3, 8, 8), dynamo=dynamo, opset=opset)
    report = find_sites(proto)
    assert report.sites == ()
    assert len(report.uncovered) >= 2


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 9), (False, 11), (False, 13), (True, None)])
@pytest.mark.parametrize("act", [nn.Hardswish(), ByHand(True)])
def test_what_the_gates_multiply_takes_the_bound(
    act: nn.Module, dynamo: bool, opset: int | None
) -> None:
    proto = export(Block(act), torch.randn(2, 3, 8, 8), dynamo=dynamo, opset=opset)
    report = find_sites(proto)
    assert [(s.kind, s.channel_axis, s.channels) for s in report.sites] == [("HardSwish", 1, 4)] * 2
    assert all("gate" in left.reason or "own form" in left.reason for left in report.uncovered)


# Subgraphs and functions


def branches(then: str, other: str) -> SiteReport:
    return sites_of(
        "(float[N,3,8,8] x, bool c) => (y) <float[4,3,1,1] w> { k = Conv (x, w) z = If (c) <"
        f"then_branch = t () => (a) {{ {then} }}, else_branch = e () => (b) {{ {other} "
        f"}}> y = Neg (z) }}"
    )


def test_relus_in_branches_are_sites() -> None:
    report = branches(
        "a = Relu (k)", "t = Transpose <perm = [0, 2, 3, 1]> (k) r = Relu (t) b = Neg (r)"
    )
    assert [(s.tensor, s.scope, s.channel_axis, s.channels) for s in report.sites] == [
        ("a", "If/then_branch", 1, 4),
        ("r", "If/else_branch", 3, 4),
    ]


def test_branches_that_use_the_same_names_are_not_mixed_up() -> None:
    report = branches(
        "t = Transpose <perm = [0, 2, 3, 1]> (k) a = Relu (t)",
        "t = Identity (k) b = Relu (t)",
    )
    assert [(s.tensor, s.channel_axis) for s in report.sites] == [("a", 3), ("b", 1)]
    report = branches("r = Relu (k) a = Neg (r)", "r = Relu (x) b = Neg (r)")
    assert report.sites == ()
    assert [entry.reason for entry in report.uncovered] == [
        "its tensor name is used in several subgraphs"
    ] * 2


def test_named_nodes_name_the_scope() -> None:
    proto = parse(
        HEAD + "(float[N,4] x, bool c) => (float[N,4] y) { y = If (c) <"
        "then_branch = t () => (a) { a = If (c) <"
        "then_branch = t2 () => (a2) { a2 = Relu (x) }, else_branch = e2 () => (b2) { "
        "b2 = Neg (x) }> },"
        "else_branch = e () => (b) { b = Neg (x) }> }"
    )
    proto.graph.node[0].name = "/outer/If"
    (site,) = find_sites(proto).sites
    assert site.scope == "/outer/If/then_branch/If/then_branch"


def test_branch_relus_that_the_logits_need_are_kept() -> None:
    text = (
        "(float[N,4] x, bool c) => (float[N,4] y, float[N,4] z) { y = If (c) <"
        "then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = "
        "Neg (x) }> z = Neg (x) }"
    )
    assert tensor_names(sites_of(text, "y").sites) == ["a"]
    assert sites_of(text, "z").sites == ()


@pytest.mark.parametrize("name", ["", "my_steps", "If"])
def test_relus_in_loops_take_no_bound_whatever_the_node_is_called(name: str) -> None:
    proto = parse(
        HEAD + "(float[N,4] x, int64 n, bool c) => (float[N,4] y) { y = Loop (n, c, x) <"
        "body = b (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] r) { on = "
        "Identity (go) r = Relu (s) }> }"
    )
    proto.graph.node[0].name = name
    report = find_sites(proto)
    assert report.sites == ()
    assert "may run many times" in reason(report, "r")


def test_a_branch_named_like_a_loop_is_still_a_branch() -> None:
    proto = parse(
        HEAD + "(float[N,4] x, bool c) => (float[N,4] y) { y = If (c) <"
        "then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }> }"
    )
    proto.graph.node[0].name = "/model/Loop/If"
    assert tensor_names(find_sites(proto).sites) == ["a"]


def test_a_branch_inside_a_loop_runs_many_times() -> None:
    report = sites_of(
        "(float[N,4] x, int64 n, bool c) => (float[N,4] y) { y = Loop (n, c, x) <"
        "body = b (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] q) { on = "
        "Identity (go) q = If (go) <"
        "then_branch = t () => (a) { a = Relu (s) }, else_branch = e () => (d) { d = "
        "Neg (s) }> }> }"
    )
    assert "may run many times" in reason(report, "a")


def test_activations_in_functions_are_named_wherever_they_are() -> None:
    proto = parse(
        '<ir_version: 10, opset_import: ["" : 17, "own" : 1]> g (float[N,4] x, bool c) '
        "=> (float[N,4] y) { y = own.f (x, c) } "
        '<domain: "own", opset_import: ["" : 17]> f (x, c) => (y) { k = Elu (x) y = If (c) <'
        "then_branch = t () => (a) { a = Relu (k) }, else_branch = e () => (b) { b = Neg (x) }> }"
    )
    report = find_sites(proto)
    assert report.sites == ()
    assert {entry.tensor for entry in report.uncovered} == {"k", "a"}
    assert "own::f" in reason(report, "a")


def test_weights_in_constant_nodes_are_weights() -> None:
    proto = parse(
        HEAD + "(float[N,3,8,8] x) => (y) <float[4,3,1,1] w> { c = Conv (x, w) y = Relu (c) }"
    )
    (weights,) = proto.graph.initializer
    constant = helper.make_node("Constant", [], ["w"], value=weights)
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, constant)
    (site,) = find_sites(proto).sites
    assert (site.channel_axis, site.channels) == (1, 4)


def test_wide_biases_have_no_values_that_a_gate_could_be_told_by() -> None:
    # Inference keeps no values of more than 1,024 elements.
    width = 2048
    proto = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        wide (float[N, 4] x) => (float[N, 3] logits)
        <float[4, {width}] first, float[{width}] bias, float[{width}, 3] last>
        {{
            product = MatMul (x, first)
            sum = Add (product, bias)
            active = Relu (sum)
            logits = MatMul (active, last)
        }}
        """
    )
    (site,) = find_sites(proto).sites
    assert (site.tensor, site.channels) == ("active", width)


def test_what_grows_without_limit_in_no_known_form_is_named() -> None:
    proto = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        others (float[T, N, 4] x) => (float[N, 8] logits)
        <float[1, 8, 4] w, float[1, 8, 8] r, float[8, 8] first, float[8, 8] last>
        {
            all, h = RNN <hidden_size = 8, activations = ["Relu"]> (x, w, r)
            flat = Squeeze (h, zero)
            one = MatMul (flat, first)
            largest = Max (flat, one)
            logits = MatMul (largest, last)
        }
        """
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    report = find_sites(proto)
    assert not report.sites
    assert [(entry.tensor, entry.op_type, entry.reason) for entry in report.uncovered] == [
        ("all", "RNN", "its Relu is inside the operator"),
        ("largest", "Max", "a maximum of several tensors"),
    ]


def test_names_of_activations_need_not_be_text() -> None:
    proto = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        odd (float[T, N, 4] x) => (float[1, N, 8] y) <float[1, 8, 4] w, float[1, 8, 8] r>
        { all, y = RNN <hidden_size = 8> (x, w, r) }
        """
    )
    proto.graph.node[0].attribute.append(helper.make_attribute("activations", [b"\xff"]))
    assert not find_sites(proto).sites
