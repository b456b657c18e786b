"""Channel axes: right where it can be told for sure, None everywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph_models import export, parse
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from mmbm_onnx.graph.read import read_model
from mmbm_onnx.graph.sites import find_sites


def axes(
    body: str, weights: str = "", *, x: str = "float[N,3,8,8] x", opset: int = 17
) -> list[object]:
    """Channel axes of the sites of a graph whose output may have any type."""
    proto = parse(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({x}) => (y) <{weights}> {{{body}}}'
    )
    return [site.channel_axis for site in find_sites(proto).sites]


def check(proto: onnx.ModelProto) -> list[tuple[int | None, int | None]]:
    onnx.checker.check_model(proto)
    return [(site.channel_axis, site.channels) for site in find_sites(proto).sites]


CONV = "c = Conv (x, w)"
W = "float[6,3,1,1] w"


def test_convolutions_put_channels_on_axis_one() -> None:
    assert axes(f"{CONV} y = Relu (c)", W) == [1]
    assert axes("c = Conv (x, w) y = Relu (c)", "float[6,3,2] w", x="float[N,3,9] x") == [1]
    assert axes("c = Conv (x, w) y = Relu (c)", "float[6,3,1,1,1] w", x="float[N,3,4,4,4] x") == [1]
    assert axes("c = ConvTranspose (x, w) y = Relu (c)", "float[3,6,2,2] w") == [1]


def test_a_convolution_with_computed_filters_is_not_believed() -> None:
    assert axes("k = GlobalAveragePool (x) c = Conv (x, k) y = Relu (c)", x="float[1,3,8,8] x") == [
        None
    ]


def test_pooling_normalisation_and_elementwise_steps_keep_the_axis() -> None:
    weights = W + ", float[6] s, float[6] b, float[6] m, float[6] v"
    body = f"""{CONV}
        n = BatchNormalization (c, s, b, m, v)
        p = MaxPool <kernel_shape = [2, 2]> (n)
        q = AveragePool <kernel_shape = [2, 2]> (p)
        d = Sigmoid (q)
        k = Mul (d, q)
        y = Relu (k)"""
    assert axes(body, weights) == [1, 1]


def test_channels_last_inputs_have_both_kinds() -> None:
    body = """
        t = Transpose <perm = [0, 3, 1, 2]> (x)
        c = Conv (t, w)
        inner = Relu (c)
        u = Transpose <perm = [0, 2, 3, 1]> (inner)
        y = Relu (u)"""
    assert axes(body, W, x="float[N,8,8,3] x") == [1, 3]


def test_bias_added_behind_a_transpose() -> None:
    body = f"{CONV} t = Transpose <perm = [0, 2, 3, 1]> (c) a = Add (t, b) y = Relu (a)"
    assert axes(body, W + ", float[6] b") == [3]
    body = f"{CONV} t = Transpose <perm = [0, 2, 3, 1]> (c) a = Add (b, t) y = Relu (a)"
    assert axes(body, W + ", float[6] b") == [3]


def test_linear_layers_put_features_on_the_last_axis() -> None:
    assert axes("m = MatMul (x, w) y = Relu (m)", "float[8,5] w", x="float[N,7,8] x") == [2]
    assert axes("m = MatMul (x, w) y = Relu (m)", "float[8,5] w", x="float[N,8] x") == [1]
    assert axes("m = Gemm (x, w) y = Relu (m)", "float[8,5] w", x="float[N,8] x") == [1]
    body = "m = MatMul (x, w) a = Add (b, m) y = Relu (a)"
    assert axes(body, "float[8,5] w, float[5] b", x="float[N,7,8] x") == [2]


def test_weights_on_the_left_put_features_on_the_row_axis() -> None:
    assert axes("m = MatMul (w, x) y = Relu (m)", "float[5,7] w", x="float[N,7,8] x") == [1]


def test_features_by_batch_have_no_channel_axis_until_turned() -> None:
    body = "t = Transpose (x) m = Gemm (w, t) r = Relu (m) u = Transpose (r) y = Relu (u)"
    assert axes(body, "float[5,8] w", x="float[N,8] x") == [None, 1]
    body = "t = Transpose (x) m = MatMul (w, t) r = Relu (m) u = Transpose (r) y = Relu (u)"
    assert axes(body, "float[5,8] w", x="float[N,8] x") == [None, 1]
    assert axes("t = Transpose (x) y = Relu (t)", x="float[N,8] x") == [None]
    assert axes("t = Transpose (x) y = Relu (t)", x="float[1,8] x") == [None]


def test_weights_that_are_computed_from_constants_are_constants() -> None:
    body = "v = Transpose (w) k = Identity (v) m = MatMul (x, k) y = Relu (m)"
    assert axes(body, "float[5,8] w", x="float[N,7,8] x") == [2]


def test_a_product_of_two_activations_has_no_features_of_its_own() -> None:
    body = "t = Transpose <perm = [0, 2, 1]> (x) m = MatMul (x, t) y = Relu (m)"
    assert axes(body, x="float[N,7,8] x") == [None]
    body = "q = MatMul (x, w) k = Transpose <perm = [0, 2, 1]> (q) m = MatMul (q, k) y = Relu (m)"
    assert axes(body, "float[8,8] w", x="float[N,7,8] x") == [None]


def test_values_weighted_by_attention_keep_their_features() -> None:
    body = """
        v = MatMul (x, w)
        t = Transpose <perm = [0, 2, 1]> (x)
        s = MatMul (x, t)
        a = Softmax (s)
        o = MatMul (a, v)
        y = Relu (o)"""
    assert axes(body, "float[8,8] w", x="float[N,7,8] x") == [2]


def test_token_mixing_bounds_the_features_of_the_mixing_layer() -> None:
    body = """
        m = MatMul (x, w)
        t = Transpose <perm = [0, 2, 1]> (m)
        k = MatMul (t, v)
        h = Relu (k)
        u = Transpose <perm = [0, 2, 1]> (h)
        y = Relu (u)"""
    assert axes(body, "float[8,6] w, float[7,9] v", x="float[N,7,8] x") == [2, 1]


def test_flattening_leaves_features_behind_the_batch() -> None:
    assert axes(f"{CONV} f = Flatten (c) y = Relu (f)", W) == [1]
    body = f"{CONV} f = Reshape (c, s) y = Relu (f)"
    assert axes(body, W + ", int64[2] s = {-1, 384}") == [1]
    assert axes(body, W + ", int64[2] s = {0, -1}") == [1]
    assert axes(body, W + ", int64[3] s = {0, 6, -1}") == [1]
    assert axes(body, W + ", int64[3] s = {0, 0, -1}") == [1]


def test_a_reshape_that_mixes_channels_with_positions_has_none() -> None:
    body = f"{CONV} f = Reshape (c, s) y = Relu (f)"
    for target in ("{0, 4, -1}", "{0, 12, -1}", "{0, 3, 2, -1}", "{-1, 6, 8, 4}", "{-1, 8, 8, 6}"):
        count = target.count(",") + 1
        assert axes(body, W + f", int64[{count}] s = {target}") == [None], target


def test_a_reshape_that_folds_channels_into_the_batch_has_none() -> None:
    body = f"{CONV} f = Reshape (c, s) y = Relu (f)"
    assert axes(body, W + ", int64[2] s = {-1, 64}") == [None]
    assert axes(body, W + ", int64[4] s = {-1, 1, 8, 8}") == [None]


def test_patches_become_tokens() -> None:
    body = f"""{CONV}
        f = Reshape (c, s)
        t = Transpose <perm = [0, 2, 1]> (f)
        n = LayerNormalization (t, g)
        y = Relu (n)"""
    assert axes(body, W + ", int64[3] s = {0, 6, -1}, float[6] g") == [2]


def test_a_channel_shuffle_is_followed_through() -> None:
    body = f"""{CONV}
        f = Reshape (c, s)
        inner = Relu (f)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (inner)
        g = Reshape (t, u)
        y = Relu (g)"""
    weights = W + ", int64[5] s = {0, 2, 3, 8, 8}, int64[4] u = {0, -1, 8, 8}"
    assert axes(body, weights) == [None, 1]


def test_heads_are_no_channels_and_come_together_again() -> None:
    body = """
        q = MatMul (x, w)
        h = Reshape (q, s)
        split = Relu (h)
        t = Transpose <perm = [0, 2, 1, 3]> (split)
        turned = Relu (t)
        b = Transpose <perm = [0, 2, 1, 3]> (turned)
        o = Reshape (b, u)
        y = Relu (o)"""
    weights = "float[8,12] w, int64[4] s = {0, 7, 3, 4}, int64[3] u = {0, 7, -1}"
    assert axes(body, weights, x="float[N,7,8] x") == [None, None, 2]


def test_group_normalisation_written_out() -> None:
    body = f"""{CONV}
        f = Reshape (c, s)
        n = InstanceNormalization (f, one, one)
        b = Reshape (n, u)
        k = Mul (b, gamma)
        y = Relu (k)"""
    weights = (
        W + ", int64[3] s = {0, 2, -1}, int64[4] u = {-1, 6, 8, 8}, float[2] one, "
        "float[6,1,1] gamma"
    )
    assert axes(body, weights) == [1]


def test_space_and_depth() -> None:
    assert axes(f"{CONV} d = SpaceToDepth <blocksize = 2> (c) y = Relu (d)", W) == [1]
    assert axes(
        "c = Conv (x, w) d = DepthToSpace <blocksize = 2> (c) y = Relu (d)", "float[8,3,1,1] w"
    ) == [1]


def test_concat_split_slice_pad_and_gather_keep_the_axis() -> None:
    assert axes(f"{CONV} k = Concat <axis = 1> (x, c) y = Relu (k)", W) == [1]
    assert axes(f"{CONV} k = Concat <axis = 1> (c, x) y = Relu (k)", W) == [1]
    assert axes(f"{CONV} k = Concat <axis = 2> (c, c) y = Relu (k)", W) == [1]
    assert axes(f"{CONV} a, b = Split <axis = 1> (c) r = Relu (a) y = Relu (b)", W) == [1, 1]
    body = f"{CONV} k = Slice (c, a, b, d) y = Relu (k)"
    assert axes(body, W + ", int64[1] a = {1}, int64[1] b = {4}, int64[1] d = {1}") == [1]
    body = f"{CONV} k = Pad (c, p) y = Relu (k)"
    assert axes(body, W + ", int64[8] p = {0, 1, 0, 0, 0, 1, 0, 0}") == [1]
    assert axes(
        f"{CONV} k = Gather <axis = 1> (c, i) y = Relu (k)", W + ", int64[4] i = {3, 1, 0, 5}"
    ) == [1]


def test_a_flattened_concat_of_channels_and_positions_has_no_unmixed_axis() -> None:
    body = f"""{CONV}
        f = Reshape (c, s)
        k = Concat <axis = 1> (f, f)
        u = Unsqueeze (k, one)
        y = Relu (u)"""
    weights = W + ", int64[2] s = {0, -1}, int64[1] one = {1}"
    assert axes(body, weights) == [None]


def test_a_flattened_concat_of_features_and_tokens_has_none() -> None:
    body = """
        m = MatMul (x, w)
        f = Reshape (m, s)
        k = Concat <axis = 1> (f, f)
        u = Unsqueeze (k, one)
        y = Relu (u)"""
    weights = "float[8,6] w, int64[2] s = {0, -1}, int64[1] one = {1}"
    assert axes(body, weights, x="float[N,7,8] x") == [None]


def test_removed_and_added_axes() -> None:
    for body, expected in (
        ("m = ReduceMean <axes = [2, 3], keepdims = 0> (c) y = Relu (m)", 1),
        ("m = ReduceMean <axes = [2, 3], keepdims = 1> (c) y = Relu (m)", 1),
        ("m = ReduceMean <axes = [2], keepdims = 0> (c) y = Relu (m)", 1),
        ("m = ReduceMean <axes = [1], keepdims = 0> (c) y = Relu (m)", None),
        ("m = GlobalAveragePool (c) y = Relu (m)", 1),
        ("m = GlobalMaxPool (c) s = Squeeze (m) y = Relu (s)", None),
        ("m = ReduceMax <axes = [3], keepdims = 1> (c) s = Squeeze (m, a) y = Relu (s)", 1),
        ("s = Unsqueeze (c, o) y = Relu (s)", 2),
        ("g = Gather <axis = 2> (c, i) y = Relu (g)", 1),
        ("g = Gather <axis = 1> (c, i) y = Relu (g)", None),
    ):
        weights = W + ", int64[1] a = {3}, int64[1] o = {1}, int64 i = {2}"
        assert axes(f"{CONV} {body}", weights) == [expected], body


def test_axes_as_attributes_of_old_operator_sets() -> None:
    body = f"{CONV} m = GlobalMaxPool (c) s = Squeeze <axes = [2, 3]> (m) y = Relu (s)"
    assert axes(body, W, opset=11) == [1]
    body = f"{CONV} s = Unsqueeze <axes = [1]> (c) y = Relu (s)"
    assert axes(body, W, opset=9) == [2]


def test_a_residual_network_of_unknown_steps_takes_no_exponential_time() -> None:
    steps = " ".join(f"a{n + 1} = Add (a{n}, a{n})" for n in range(200))
    assert axes(f'a0 = Einsum <equation = "nchw->nhwc"> (x) {steps} y = Relu (a200)') == [None]


def test_what_no_rule_describes_is_unknown() -> None:
    assert axes(f'{CONV} e = Einsum <equation = "nchw->nhwc"> (c) y = Relu (e)', W) == [None]
    assert axes("y = Relu (x)") == [None]
    assert axes("y = Relu (x)", x="float[N,8] x") == [1]
    assert axes(
        f"{CONV} s = Shape (c) r = Reshape (c, x2) y = Relu (r)",
        W,
        x="float[N,3,8,8] x, int64[4] x2",
    ) == [None]


def test_the_batch_axis_is_never_chosen() -> None:
    for perm in ("[1, 0, 2, 3]", "[1, 2, 3, 0]"):
        assert axes(f"{CONV} t = Transpose <perm = {perm}> (c) y = Relu (t)", W) == [None]
    body = (
        "t = Transpose <perm = [1, 0, 2, 3]> (x) p = MaxPool <kernel_shape = [2, 2]> "
        "(t) y = Relu (p)"
    )
    assert axes(body) == [None]
    body = "t = Transpose <perm = [1, 2, 0]> (x) n = LayerNormalization (t, g) y = Relu (n)"
    assert axes(body, "float[4] g", x="float[4,7,8] x") == [None]


def test_a_convolution_over_the_batch_has_no_channels() -> None:
    body = "t = Transpose <perm = [1, 0, 2, 3]> (x) c = Conv (t, w) y = Relu (c)"
    assert axes(body, "float[4,2,1,1] w", x="float[2,3,8,8] x") == [None]


def test_two_unknown_axes_are_not_taken_for_batch_and_features() -> None:
    assert axes('e = Einsum <equation = "ab->ba"> (x) y = Relu (e)', x="float[1,8] x") == [None]


def test_scores_between_heads_have_no_channels() -> None:
    body = """
        q = MatMul (x, w)
        h = Reshape (q, s)
        a = Transpose <perm = [0, 2, 1, 3]> (h)
        b = Transpose <perm = [0, 2, 3, 1]> (h)
        m = MatMul (a, b)
        y = Relu (m)"""
    assert axes(body, "float[8,12] w, int64[4] s = {0, 7, 3, 4}", x="float[N,7,8] x") == [None]


def test_channels_cut_from_a_mixture_leave_no_axis_that_holds_all() -> None:
    body = f"{CONV} f = Reshape (c, s) k = Slice (f, a, b, d) y = Relu (k)"
    weights = (
        W + ", int64[4] s = {0, 2, 24, 8}, int64[1] a = {1}, int64[1] b = {9}, int64[1] d = {2}"
    )
    assert axes(body, weights) == [None]


def test_a_reshape_of_unknown_lengths_does_not_take_a_part_for_the_whole() -> None:
    body = f"{CONV} f = Reshape (c, s) y = Relu (f)"
    weights = W + ", int64[4] s = {0, 2, -1, 5}"
    assert axes(body, weights, x="float[N,3,?,?] x") == [None]
    weights = W + ", int64[3] s = {0, 6, -1}"
    assert axes(body, weights, x="float[N,3,?,?] x") == [1]


def test_normalisation_of_the_input_names_an_axis_only_until_the_first_layer() -> None:
    body = "n = LayerNormalization (x, g) r = Relu (n) c = Conv (r, w) y = Relu (c)"
    assert axes(body, W + ", float[8] g") == [3, 1]


def test_stale_declared_shapes_are_not_believed() -> None:
    proto = parse(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (y) <{W}> '
        f"{{ {CONV} y = Relu (c) }}"
    )
    proto.graph.value_info.append(
        onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 2, 3])
    )
    (site,) = find_sites(proto).sites
    assert (site.rank, site.channel_axis, site.channels) == (4, 1, 6)


def test_declared_shapes_help_behind_operators_that_are_not_known() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
        f"g (float[N,3,8,8] x) => (y) <{W}> {{ u = own.Thing (x) c = Conv (u, w) y = Relu (c) }}"
    )
    (site,) = find_sites(proto).sites
    assert site.channel_axis is None
    proto.graph.value_info.append(
        onnx.helper.make_tensor_value_info("u", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])
    )
    (site,) = find_sites(proto).sites
    assert (site.rank, site.channel_axis, site.channels) == (4, 1, 6)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("bvlc_alexnet", 7),
        ("densenet121", 121),
        ("inception_v1", 57),
        ("inception_v2", 69),
        ("resnet50", 49),
        ("shufflenet", 33),
        ("squeezenet", 26),
        ("vgg19", 18),
        ("zfnet512", 7),
    ],
)
def test_every_site_of_the_well_known_networks_has_its_channels(name: str, count: int) -> None:
    sites = find_sites(read_model(LIGHT / f"light_{name}.onnx").proto).sites
    assert len(sites) == count
    assert {site.channel_axis for site in sites} == {1}
    assert all(site.channels is not None for site in sites)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 1, groups=8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        x = torch.relu(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w))
        x = torch.relu(self.second(x))
        return self.last(torch.relu(x.mean((2, 3))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.qkv = nn.Linear(16, 48)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        n, length, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = torch.relu(q @ k.transpose(-1, -2))
        x = torch.relu(x + (scores @ v).transpose(1, 2).reshape(n, length, d))
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.head(torch.relu(x.mean(1)))


class Groups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 49, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.conv(x))))
        return self.last(torch.relu(x.view(x.size(0), -1)))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(("dynamo", "opset"), [(True, None), (False, 9), (False, 13), (False, 17)])
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Shuffle, [(1, 8), (1, 8), (1, 8)]),
        (Transformer, [(None, None), (2, 16), (2, 32), (1, 16)]),
        (Groups, [(1, 8), (1, 392)]),
    ],
)
def test_what_torch_exports(
    module: type[nn.Module], expected: list[object], dynamo: bool, opset: int | None, dynamic: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2 if dynamic else 1, 3, 16, 16)
    proto = export(module(), x, dynamo=dynamo, opset=opset, dynamic=dynamic)
    assert check(proto) == expected


STEPS = (
    "Transpose <perm = [0, 1, 3, 2]>",
    "Transpose <perm = [0, 2, 3, 1]>",
    "Transpose <perm = [0, 3, 1, 2]>",
    "MaxPool <kernel_shape = [1, 1]>",
    "Reshape",
    "Sigmoid",
)


@pytest.mark.parametrize("seed", range(60))
def test_a_chosen_axis_is_the_axis_of_the_filters(seed: int) -> None:
    """Random chains of moves behind a convolution whose filter k puts out the constant k."""
    rng = np.random.default_rng(seed)
    body, shape, tensor = ["c = Conv (x, w, b)"], [2, 6, 4, 4], "c"
    weights = "float[6,3,1,1] w, float[6] b"
    for number in range(rng.integers(1, 6)):
        step, target = STEPS[rng.integers(len(STEPS))], f"t{number}"
        if step == "Reshape":
            shape = _random_shape(rng, shape)
            numbers = ", ".join(map(str, shape))
            weights += f", int64[{len(shape)}] s{number} = {{{numbers}}}"
            body.append(f"{target} = Reshape ({tensor}, s{number})")
        elif step == "Sigmoid":
            body.append(f"{target} = Identity ({tensor})")
        elif len(shape) == 4:
            if "perm" in step:
                perm = [int(digit) for digit in step if digit.isdigit()]
                shape = [shape[place] for place in perm]
            body.append(f"{target} = {step} ({tensor})")
        else:
            continue
        tensor = target
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[2,3,4,4] x) => (y) <{weights}> '
    proto = parse(f"{text}{{ {' '.join(body)} y = Relu ({tensor}) }}")
    for weight in proto.graph.initializer:
        if weight.name == "w":
            weight.CopyFrom(numpy_helper.from_array(np.zeros((6, 3, 1, 1), np.float32), "w"))
        if weight.name == "b":
            weight.CopyFrom(numpy_helper.from_array(np.arange(6, dtype=np.float32), "b"))
    (site,) = find_sites(proto).sites
    session = ReferenceEvaluator(proto)
    (value,) = session.run(None, {"x": np.zeros((2, 3, 4, 4), np.float32)})
    constant = [
        axis
        for axis in range(1, value.ndim)
        if value.shape[axis] == 6 and np.array_equal(np.sort(_profile(value, axis)), np.arange(6))
    ]
    if value.ndim > 2:
        assert site.channel_axis in (*constant, None)
        assert site.channel_axis == (constant[0] if constant else None)
    else:
        assert site.channel_axis in (1, None)


def _profile(value: np.ndarray, axis: int) -> np.ndarray:
    """The value at each place of an axis if it is the same all over, else nothing."""
    rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    return rows[:, 0] if (rows == rows[:, :1]).all() else np.empty(0)


def _random_shape(rng: np.random.Generator, shape: list[int]) -> list[int]:
    """A random way to join or split neighbouring axes behind the batch."""
    rest = list(shape[1:])
    place = int(rng.integers(len(rest)))
    if rng.random() < 0.5 and len(rest) > 1:
        place = min(place, len(rest) - 2)
        rest[place : place + 2] = [rest[place] * rest[place + 1]]
    else:
        factor = int(rng.choice([f for f in (1, 2, 3, 4) if rest[place] % f == 0]))
        rest[place : place + 1] = [factor, rest[place] // factor]
    return [shape[0], *rest]
