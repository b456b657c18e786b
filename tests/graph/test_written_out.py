"""Activations that are written out in several nodes, and what looks like them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from graph_models import export, parse
from torch import nn
from torch.nn import functional

from mmbm_onnx.graph.sites import find_sites


class Block(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Conv2d(3, 4, 3), act, nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.act(self.one(x)).mean((2, 3)))


class Tanh(nn.Module):
    """Gelu by tanh, as its authors wrote it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = 0.7978845608 * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + torch.tanh(inner))


class Quick(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class MishByHand(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tanh(functional.softplus(x))


class EluByHand(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, torch.exp(x) - 1)


class LeakyByMax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(0.1 * x, x)


class By(nn.Module):
    """A function written in tensors, with a name for the test."""

    def __init__(self, name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)

    def __str__(self) -> str:
        return self.name


SLOPES = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1)
ACTIVATIONS = [
    (By("maximum", lambda x: torch.maximum(x, torch.zeros_like(x))), "Relu"),
    (By("where", lambda x: torch.where(x > 0, x, torch.zeros_like(x))), "Relu"),
    (By("where not", lambda x: torch.where(x <= 0, torch.zeros_like(x), x)), "Relu"),
    (By("masked_fill", lambda x: x.masked_fill(x < 0, 0.0)), "Relu"),
    (By("threshold", lambda x: torch.where(x > 0.1, x, torch.zeros_like(x))), "ThresholdedRelu"),
    (By("times its sign", lambda x: x * (x > 0)), "Relu"),
    (By("half of it and its size", lambda x: (x + x.abs()) / 2), "Relu"),
    (By("PReLU by hand", lambda x: torch.where(x > 0, x, SLOPES * x)), "LeakyRelu"),
    (By("Swish per channel", lambda x: x * torch.sigmoid(SLOPES * x)), "Swish"),
    (EluByHand(), "Elu"),
    (LeakyByMax(), "LeakyRelu"),
    (nn.SiLU(), "Swish"),
    (Quick(), "Swish"),
    (nn.GELU(), "Gelu"),
    (nn.GELU(approximate="tanh"), "Gelu"),
    (Tanh(), "Gelu"),
    (nn.Mish(), "Mish"),
    (MishByHand(), "Mish"),
    (nn.Hardswish(), "HardSwish"),
    (nn.LeakyReLU(), "LeakyRelu"),
    (nn.PReLU(4), "PRelu"),
    (nn.ELU(), "Elu"),
    (nn.SELU(), "Selu"),
    (nn.CELU(), "Celu"),
    (nn.Softplus(), "Softplus"),
]


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 12), (False, 17), (True, None)])
@pytest.mark.parametrize(("act", "kind"), ACTIVATIONS, ids=lambda value: str(value))
def test_the_result_is_the_one_site(
    act: nn.Module, kind: str, dynamo: bool, opset: int | None
) -> None:
    proto = export(Block(act), torch.randn(2, 3, 8, 8), dynamo=dynamo, opset=opset)
    report = find_sites(proto)
    (site,) = report.sites
    # Exporters may name a Celu after what it is a case of.
    assert site.kind in {kind, "Elu" if kind == "Celu" else kind}
    assert (site.channel_axis, site.channels) == (1, 4)
    readers = [node for node in proto.graph.node if site.tensor in node.input]
    assert [node.op_type for node in readers] in (["ReduceMean"], ["GlobalAveragePool"])


def sites(body: str, given: str = "") -> list[tuple[str, str]]:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) '
        f"<float two = {{2.0}}, float[4] each = {{1.0, 2.0, 3.0, 4.0}}, float[4,4] w {given}> "
        f"{{ {body} }}"
    )
    return [(site.tensor, site.kind) for site in find_sites(parse(text)).sites]


def test_scalings_behind_it_belong_to_it() -> None:
    swish = "s = Sigmoid (x) a = Mul (s, x)"
    assert sites(f"{swish} y = Neg (a)") == [("a", "Swish")]
    assert sites(f"{swish} b = Mul (two, a) c = Div (b, two) y = Neg (c)") == [("c", "Swish")]
    # ... not when somebody else reads what is scaled, nor scalings per channel.
    assert sites(f"{swish} b = Mul (a, two) y = Add (a, b)") == [("a", "Swish")]
    assert sites(f"{swish} b = Mul (a, each) y = Neg (b)") == [("a", "Swish")]
    assert sites(f"{swish} b = Div (two, a) y = Neg (b)") == [("a", "Swish")]


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul (x, w) s = Sigmoid (m) y = Mul (x, s)",  # squeeze and excitation
        "s = Sigmoid (x) y = Mul (s, s)",
        "s = Sigmoid (x) y = Mul (s, two)",
        "y = Mul (x, x)",
        "a = Add (x, two) y = Mul (x, a)",  # without limits
        "m = MatMul (x, w) a, b = Split <axis = 1> (m) s = Sigmoid (b) "
        "p = Mul (a, s) y = Concat <axis = 1> (p, p)",  # a gated linear unit
        "s = Sigmoid (x) e = Mul (s, each) y = Mul (x, e)",  # of another sign in some channels
        "g = Less (x, zero) f = Cast <to = 1> (g) y = Mul (x, f)",  # the lower half
        "g = Greater (x, zero) y = Where (g, zero, x)",
        "m = MatMul (x, w) g = Greater (m, zero) y = Where (g, x, zero)",  # by another's sign
        "a = Abs (x) m = MatMul (x, w) y = Add (m, a)",
        # Falling where x rises.
        "n = Mul (x, minus) g = Greater (x, zero) f = Cast <to = 1> (g) y = Mul (n, f)",
        "n = Mul (x, minus) s = Sigmoid (x) y = Mul (n, s)",
        "n = Neg (x) g = Less (x, zero) y = Where (g, x, n)",
        # Sentinels, sizes and floors.
        "g = Greater (x, minus) f = Cast <to = 1> (g) y = Mul (x, f)",
        "n = ReduceL2 <axes = [1]> (x) m = Max (n, zero) y = Div (x, m)",
        "v = Mul (x, x) m = Max (v, zero) s = Mul (m, two) a = Add (s, two) r = Sqrt (a) "
        "y = Div (x, r)",
        "g = Greater (x, zero) v = Where (g, x, zero) a = Add (v, two) r = Sqrt (a) y = Div (x, r)",
        "v = Mul (x, x) m = Max (v, zero) c = Cast <to = 1> (m) a = Add (c, two) r = Sqrt (a) "
        "y = Div (x, r)",
        "v = Mul (x, x) m = Max (v, zero) r = Pow (m, half) y = Div (x, r)",
        "v = ReduceSumSquare <axes = [1], keepdims = 0> (x) m = Max (v, zero) i = Shape (x) "
        "c = Constant <value_ints = [-1, 1]> () h = Reshape (m, c) e = Expand (h, i) "
        "a = Add (e, two) r = Sqrt (a) i2 = Reciprocal (r) y = Mul (x, i2)",  # of jax
        "s = Softmax (x) g = Greater (s, zero) y = Where (g, s, zero)",
        # Limited from above as well.
        "a = Min (x, one) y = Max (a, zero)",
        "a = Max (x, zero) y = Min (a, one)",
        "s = Add (x, two) a = Min (s, two) y = Max (a, zero)",
        # No multiples.
        "i = Identity (x) y = Max (x, i)",
        "s = Mul (x, x) h = Mul (s, two) g = Less (s, two) y = Where (g, h, x)",
    ],
)
def test_what_only_looks_like_one(body: str) -> None:
    numbers = ", float zero = {0.0}, float minus = {-1.0}, float one = {1.0}, float half = {0.5}"
    assert sites(body, numbers) == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("a = Max (x, zero) y = Pow (a, two)", "Relu"),  # squared
        ("g = Greater (x, zero) a = Where (g, x, zero) y = Mul (a, a)", "Relu"),
        ("l = Min (x, two) a = Max (l, zero) y = Neg (a)", "Relu"),  # as Clip
        ("a = Max (x, zero) r = Sqrt (a) e = Mul (r, two) y = Add (a, e)", "Relu"),
        ("a = Max (x, zero) t = Transpose (a) y = Transpose (t)", "Relu"),
        ("g = Greater (x, zero) l = Mul (x, minus) a = Where (g, x, l) y = Neg (a)", "LeakyRelu"),
        ("g = Greater (x, zero) l = Mul (x, zero) a = Where (g, x, l) y = Neg (a)", "LeakyRelu"),
        ("g = Greater (x, zero) l = Mul (x, each) a = Where (g, x, l) y = Neg (a)", "LeakyRelu"),
    ],
)
def test_what_is_like_others_that_are_not(body: str, kind: str) -> None:
    assert sites(body, ", float zero = {0.0}, float minus = {-1.0}") == [("a", kind)]


def test_floors_that_are_no_activations_are_named() -> None:
    proto = parse(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y)
        <float zero = {0.0}> { v = Mul (x, x) m = Max (v, zero) r = Sqrt (m) y = Div (x, r) }"""
    )
    (entry,) = find_sites(proto).uncovered
    assert (entry.tensor, entry.op_type) == ("m", "Max")
    assert "from falling below 0" in entry.reason


def test_a_negative_multiple_behind_it_is_another_tensor() -> None:
    numbers = ", float zero = {0.0}, float minus = {-1.0}"
    assert sites("a = Max (x, zero) y = Mul (a, minus)", numbers) == [("a", "Relu")]
    assert sites("s = Sigmoid (x) a = Mul (x, s) y = Div (a, minus)", numbers) == [("a", "Swish")]


@pytest.mark.parametrize("width", [4, 2000, 100_000])
def test_constants_filled_with_one_number_are_scalars(width: int) -> None:
    for body, kind in (
        ("y = Max (s, zeros)", "Relu"),
        ("g = Greater (s, zeros) y = Where (g, s, zeros)", "Relu"),
        (
            "d = Div (s, twos) e = Erf (d) p = Add (e, ones) t = Mul (s, p) y = Div (t, twos)",
            "Gelu",
        ),
        ("n = Neg (s) l = Div (n, twos) y = Max (s, l)", None),
    ):
        proto = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[N,{width}] x) => (float[N,{width}] z) {{ s = Neg (x) {body} z = Neg (y) }}"""
        )
        for number, name in enumerate(("zeros", "ones", "twos")):
            array = np.full(width, number, np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        assert [site.kind for site in find_sites(proto).sites] == [kind] * bool(kind), body


def test_a_softplus_within_a_mish_is_no_site_of_its_own() -> None:
    assert sites("p = Softplus (x) t = Tanh (p) y = Mul (x, t)") == [("y", "Mish")]
    assert sites("p = Softplus (x) y = Mul (x, p)") == [("p", "Softplus")]


def test_a_choice_by_the_sign_is_an_activation() -> None:
    zero = "float zero = {0.0}"
    assert sites("c = Greater (x, zero) l = Mul (x, two) y = Where (c, x, l)", f", {zero}") == [
        ("y", "LeakyRelu")
    ]
    # ... and one by another tensor's is not.
    assert not sites(
        "m = MatMul (x, w) c = Greater (m, zero) l = Mul (x, two) y = Where (c, x, l)", f", {zero}"
    )


def test_relus_by_max() -> None:
    zero = ", float zero = {0.0}, float three = {3.0}, float six = {6.0}"
    assert sites("y = Max (x, zero)", zero) == [("y", "Relu")]
    assert sites("y = Max (zero, x)", zero) == [("y", "Relu")]
    assert sites("y = Max (x, two)", zero) == []
    assert sites("m = MatMul (x, w) y = Max (x, m)", zero) == []
    gate = "a = Add (three, x) r = Max (zero, a) m = Min (six, r)"
    assert sites(f"{gate} y = Neg (m)", zero) == []
    assert sites(f"{gate} y = Mul (m, x)", zero) == [("y", "HardSwish")]


def test_what_others_read_as_well_keeps_its_own_bound() -> None:
    given = ", float three = {3.0}, float six = {6.0}"
    assert sites("r = Relu (x) m = Min (r, six) h = Mul (x, m) y = Add (h, r)", given) == [
        ("r", "Relu"),
        ("h", "HardSwish"),
    ]
    assert sites("p = Softplus (x) t = Tanh (p) h = Mul (x, t) y = Add (h, p)") == [
        ("p", "Softplus"),
        ("h", "Mish"),
    ]
    swish = "s = Sigmoid (x) g = Mul (x, s)"
    assert sites(f"{swish} u = Sigmoid (g) h = Mul (x, u) y = Add (h, g)") == [
        ("g", "Swish"),
        ("h", "Swish"),
    ]


def test_what_a_subgraph_reads_is_not_scaled_out_of_sight() -> None:
    proto = parse(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x, bool c) => (float[N,4] y)
        <float two = {2.0}> {
            s = Sigmoid (x) a = Mul (x, s) b = Mul (a, two)
            i = If (c) <then_branch = t () => (p) { p = Identity (a) },
                        else_branch = e () => (q) { q = Neg (a) }>
            y = Add (b, i)
        }"""
    )
    assert [site.tensor for site in find_sites(proto).sites] == ["a"]


@pytest.mark.parametrize(
    "body",
    [
        "h = Div (x, two) e = Erf (h) y = Mul (h, e)",  # even: half of a Gelu
        "e = Tanh (x) y = Mul (x, e)",
        "n = Neg (x) y = Max (x, n)",
        "m = Mul (x, minus) y = Max (x, m)",
        "s = Sigmoid (x) r = Sub (two, s) y = Mul (x, r)",
        "v = Max (x, zero) r = Sqrt (v) y = Neg (r)",
        "v = Max (x, zero) a = Add (v, two) r = Sqrt (a) y = Neg (r)",
    ],
)
def test_what_has_the_form_of_one_only_in_part(body: str) -> None:
    assert sites(body, ", float zero = {0.0}, float minus = {-1.0}") == []


def test_operators_of_other_domains_are_not_read() -> None:
    functions = """
        <domain: "my", opset_import: ["" : 17]> Sigmoid (v) => (w) { w = Mul (v, v) }
        <domain: "my", opset_import: ["" : 17]> Div (a, b, c) => (w) { w = Add (a, b) }
        <domain: "my", opset_import: ["" : 17]> Identity (v) => (w) { w = Sin (v) }
    """
    for body in (
        "s = my.Sigmoid (x) y = Mul (x, s)",
        "d = my.Div (x, two, two) s = Sigmoid (x) y = Mul (d, s)",
        "b = my.Identity (x) s = Sigmoid (x) y = Mul (b, s)",
    ):
        proto = parse(
            '<ir_version: 8, opset_import: ["" : 17, "my" : 1]> g (float[N,4] x) => '
            f"(float[N,4] y) <float two = {{2.0}}> {{ {body} }} {functions}"
        )
        assert find_sites(proto).sites == ()


def test_what_depends_on_no_input_is_no_site() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) '
        "<float[4] w = {1.0, 2.0, 3.0, 4.0}> { p = Softplus (w) r = Relu (p) s = Sigmoid (w) "
        "q = Mul (w, s) a = Mul (x, r) y = Mul (a, q) }"
    )
    report = find_sites(proto)
    assert report.sites == ()
    assert {left.reason for left in report.uncovered} >= {"it depends on no input"}


def test_constants_may_be_cast_to_the_type_of_the_value() -> None:
    given = ", float three = {3.0}, float six = {6.0}, float zero = {0.0}"
    cast = "t = CastLike (three, x) s = CastLike (six, x) z = CastLike (zero, x)"
    assert sites(f"{cast} y = Clip (x, z, s)", given) == [("y", "Clip")]
    assert sites(f"{cast} y = Max (x, z)", given) == [("y", "Relu")]
    swish = "a = Add (x, t) k = Clip (a, z, s) g = Div (k, s) b = CastLike (g, x) y = Mul (x, b)"
    assert sites(f"{cast} {swish}", given) == [("y", "HardSwish")]


def test_long_chains_of_nodes_that_change_nothing_are_gone_through() -> None:
    chain = " ".join(f"n{i + 1} = Not (n{i})" for i in range(3000))
    body = f"n0 = Greater (x, zero) {chain} y = Where (n3000, x, zero)"
    assert sites(body, ", float zero = {0.0}") == []
    assert sites(
        "n0 = Greater (x, zero) n1 = Not (n0) n2 = Not (n1) y = Where (n2, x, zero)",
        ", float zero = {0.0}",
    ) == [("y", "Relu")]
