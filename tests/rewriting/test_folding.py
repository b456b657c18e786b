"""Bounds folded into weights compute what Clip and Min compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.folding.factors import Factors
from mmbm_onnx.rewriting.folding.fold import Folded, fold_bounds
from mmbm_onnx.rewriting.folding.record import FOLDED, Record, read_record
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Bounds

CHANNELS = 8
SIZE = 6


class Net:
    """Builds a model node by node; every method returns the name of what it computes."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}{'abc'[i] if outputs > 1 else ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else " ".join(names)

    def constant(self, values: object, dtype: object = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 2, shape))

    def conv(self, x: str, made: int = CHANNELS, read: int = CHANNELS, group: int = 1) -> str:
        weight = self.random(made, read // group, 3, 3)
        return self.add("Conv", x, weight, self.random(made), pads=[1] * 4, group=group)

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def head(self, x: str, read: int = CHANNELS) -> onnx.ModelProto:
        flat = self.add("Flatten", self.add("GlobalAveragePool", x))
        return self.model(self.add("Gemm", flat, self.random(3, read), self.random(3), transB=1))

    def model(self, logits: str) -> onnx.ModelProto:
        self.nodes[[logits in n.output for n in self.nodes].index(True)].output[0] = "logits"
        for node in self.nodes:
            node.input[:] = ["logits" if name == logits else name for name in node.input]
        info = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
            *(
                helper.make_tensor_value_info(o, TensorProto.FLOAT, ["n", CHANNELS, SIZE, SIZE])
                for o in self.outputs
            ),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, SIZE, SIZE])
        graph = helper.make_graph(self.nodes, "net", [x], info, self.weights)
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        onnx.checker.check_model(proto, full_check=True)
        return proto


def bounds_of(proto: onnx.ModelProto, seed: int = 0) -> Bounds:
    """Bounds between the median and the maximum of each channel, so that all of them bind."""
    sites = find_sites(proto).sites
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    present = {info.name for info in proto.graph.output}
    for site in sites:
        if site.tensor not in present:
            tapped.graph.output.append(onnx.ValueInfoProto(name=site.tensor))
    names = [site.tensor for site in sites]
    values = Session(tapped, threads=1).run(names, {"x": inputs()})
    rng = np.random.default_rng(seed)
    found = {}
    for site, value in zip(sites, values, strict=True):
        channels = np.moveaxis(np.asarray(value), site.channel_axis or 0, 0)
        high = channels.reshape(len(channels), -1).max(1)
        bound = np.maximum(high * rng.uniform(0.3, 0.8, high.shape), 0.05)
        found[site.tensor] = bound.astype(np.float32)
    return Bounds(found)


def inputs() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(4, CHANNELS, SIZE, SIZE)).astype(np.float32)


def run(proto: onnx.ModelProto) -> list[np.ndarray]:
    names = [info.name for info in proto.graph.output]
    return [np.asarray(v) for v in Session(proto, threads=1).run(names, {"x": inputs()})]


def folded(
    proto: onnx.ModelProto, bounds: Bounds | None = None, *, depthwise: bool = True
) -> Folded:
    """Fold, and compare all outputs with the graph that has Clip and Min."""
    bounds = bounds_of(proto) if bounds is None else bounds
    sites = find_sites(proto).sites
    found = fold_bounds(proto, sites, bounds, depthwise=depthwise)
    check_written(found.proto)
    check_signature(proto, found.proto, folded=True)
    plain = insert_bounds(proto, sites, bounds)
    before = run(proto)
    for one, other, original in zip(run(plain), run(found.proto), before, strict=True):
        scale = np.abs(one).max()
        assert np.abs(one - original).max() > 1e-3 * scale, "the bounds do not bind"
        assert np.abs(one - other).max() <= 1e-5 * scale
    return found


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def test_a_chain_needs_one_clip_each_and_no_min() -> None:
    net = Net()
    proto = net.head(net.relu(net.conv(net.relu(net.conv("x")))))
    found = folded(proto)
    assert len(found.folded) == 2
    assert found.kept == ()
    assert operators(found.proto) == operators(proto) + Counter(Clip=2)
    limits = [node for node in found.proto.graph.node if node.op_type == "Clip"]
    constants = {t.name: numpy_helper.to_array(t) for t in found.proto.graph.initializer}
    assert all(constants[node.input[2]].ndim == 0 for node in limits)


def test_weights_that_nothing_reads_any_more_are_gone() -> None:
    net = Net()
    proto = net.head(net.relu(net.conv("x")))
    found = folded(proto).proto
    read = {name for node in found.graph.node for name in node.input}
    assert {tensor.name for tensor in found.graph.initializer} <= read
    assert found.ByteSize() < 1.3 * proto.ByteSize()


def test_a_weight_that_two_nodes_share_becomes_two() -> None:
    net = Net()
    weight = net.random(CHANNELS, CHANNELS, 1, 1)
    first = net.relu(net.add("Conv", "x", weight))
    proto = net.head(net.relu(net.add("Conv", first, weight)))
    found = folded(proto)
    assert len(found.folded) == 2
    names = [n.input[1] for n in found.proto.graph.node if n.op_type == "Conv"]
    assert len(set(names)) == 2


def test_residual_sums_go_through_depthwise_convolutions() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    for _ in range(3):
        x = net.relu(net.add("Add", net.conv(net.relu(net.conv(x))), x))
    found = folded(net.head(x))
    assert len(found.folded) == 7
    assert operators(found.proto)["Min"] == 0
    depthwise = (
        [
            node
            for node in found.proto.graph.node
            if node.op_type == "Conv" and helper.get_node_attr_value(node, "group") == CHANNELS
        ]
        if operators(found.proto)["Conv"]
        else []
    )
    assert len(depthwise) == 3


def test_without_them_one_bound_of_a_residual_stream_is_folded() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    for _ in range(3):
        x = net.relu(net.add("Add", net.conv(net.relu(net.conv(x))), x))
    found = folded(net.head(x), depthwise=False)
    assert len(found.folded) == 4
    assert len(found.kept) == operators(found.proto)["Min"] == 3


def test_batch_normalization_before_an_activation_becomes_a_convolution() -> None:
    net = Net()
    parts = [net.positive(CHANNELS), net.random(CHANNELS), net.random(CHANNELS)]
    x = net.add("BatchNormalization", "x", *parts, net.positive(CHANNELS), epsilon=1e-3)
    proto = net.head(net.relu(net.conv(net.relu(x))))
    found = folded(proto)
    assert len(found.folded) == 2
    assert operators(found.proto)["BatchNormalization"] == 0
    assert operators(folded(proto, depthwise=False).proto)["BatchNormalization"] == 1


@pytest.mark.parametrize("case", ["output", "sigmoid", "square"])
def test_what_reads_a_value_otherwise_keeps_its_min(case: str) -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    if case == "output":
        net.outputs.append(x)
        y = x
    elif case == "sigmoid":
        y = net.add("Add", net.add("Sigmoid", x), net.conv(x))
    else:
        y = net.add("Mul", x, x)
    found = folded(net.head(net.relu(net.conv(y))))
    assert found.kept == (x,)
    assert len(found.folded) == 1


def test_bounds_too_uneven_for_float32_keep_their_min() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    proto = net.head(net.relu(net.conv(x)))
    bounds = dict(bounds_of(proto))
    bounds[x] = np.geomspace(1e-9, 0.5, CHANNELS).astype(np.float32)
    found = folded(proto, Bounds(bounds))
    assert found.kept == (x,)


def test_one_bound_for_a_whole_tensor_is_a_clip_and_stops_scales() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    y = net.relu(net.add("MaxPool", x, kernel_shape=[2, 2]))
    proto = net.head(net.relu(net.conv(y)))
    bounds = dict(bounds_of(proto))
    bounds[y] = np.asarray(bounds[y].mean(), np.float32)
    found = folded(proto, Bounds(bounds))
    assert x in found.kept
    assert y not in (*found.kept, *found.folded)


def test_only_what_was_asked_to_stays_unscaled() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    proto = net.head(net.relu(net.conv(x)))
    bounds, sites = bounds_of(proto), find_sites(proto).sites
    assert x in fold_bounds(proto, sites, bounds).folded
    assert x in fold_bounds(proto, sites, bounds, unscaled=(x,)).kept


@pytest.mark.parametrize(
    "activation", ["LeakyRelu", "PRelu", "Clip", "Elu", "Softplus", "HardSwish"]
)
@pytest.mark.parametrize("behind_sum", [False, True])
def test_other_activations(activation: str, behind_sum: bool) -> None:
    net = Net()

    def act(x: str) -> str:
        if activation == "PRelu":
            return net.add("PRelu", x, net.positive(CHANNELS, 1, 1))
        if activation == "Clip":
            return net.add("Clip", x, net.constant(0), net.constant(6))
        return net.add(activation, x)

    x = net.conv("x")
    x = act(net.add("Add", x, net.conv("x")) if behind_sum else x)
    found = folded(net.head(net.relu(net.conv(x))))
    homogeneous = activation in ("LeakyRelu", "PRelu", "Clip")
    assert len(found.folded) == (2 if homogeneous else 1)


def test_a_relu6_keeps_its_own_limit_where_the_bound_is_higher() -> None:
    net = Net()
    x = net.add("Clip", net.conv("x"), net.constant(0), net.constant(6))
    proto = net.head(net.relu(net.conv(x)))
    bounds = dict(bounds_of(proto))
    bounds[x] = np.linspace(0.2, 9, CHANNELS).astype(np.float32)
    assert x in folded(proto, Bounds(bounds)).folded


def test_a_value_that_a_subgraph_reads_stays_as_it_is() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    branches = []
    for op in ("Neg", "Identity"):
        out = helper.make_tensor_value_info(
            f"{op}_out", TensorProto.FLOAT, ["n", CHANNELS, SIZE, SIZE]
        )
        body = [helper.make_node(op, [x], [f"{op}_out"])]
        branches.append(helper.make_graph(body, op, [], [out]))
    condition = net.constant(False, np.bool_)
    y = net.add("If", condition, then_branch=branches[0], else_branch=branches[1])
    found = folded(net.head(net.relu(net.conv(net.add("Add", y, x)))))
    assert found.kept == (x,)


def test_initializers_that_may_be_replaced_are_left_alone() -> None:
    net = Net()
    x = net.relu(net.conv("x"))
    proto = net.head(net.relu(net.conv(x)))
    names = {t.name: list(t.dims) for t in proto.graph.initializer}
    weight = proto.graph.node[2].input[1]
    proto.graph.input.append(
        helper.make_tensor_value_info(weight, TensorProto.FLOAT, names[weight])
    )
    found = folded(proto)
    assert weight in {tensor.name for tensor in found.proto.graph.initializer}
    assert found.kept == (x,)


@pytest.mark.parametrize(
    "case",
    ["resized channels", "padded with ones", "padded channels", "normalized in training",
     "clipped from below", "turned matrix", "turned by Gemm", "divided by it",
     "a constant divided by it", "resized from outside", "shared out by Dropout"],
)  # fmt: skip
def test_what_scales_do_not_pass_through_stays_as_it_is(case: str) -> None:
    net = Net(opset=15)
    x = net.relu(net.conv("x"))
    empty = ""
    if case == "resized channels":
        factors = net.constant([1, 0.5, 1, 1])
        y = net.conv(net.add("Resize", x, empty, factors, mode="linear"), read=CHANNELS // 2)
    elif case == "padded with ones":
        pads = net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        y = net.conv(net.add("Pad", x, pads, net.constant(1)))
    elif case == "padded channels":
        pads = net.constant([0, 2, 0, 0, 0, 0, 0, 0], np.int64)
        y = net.conv(net.add("Pad", x, pads), read=CHANNELS + 2)
    elif case == "normalized in training":
        parts = [net.positive(CHANNELS), net.random(CHANNELS), net.random(CHANNELS)]
        parts.append(net.positive(CHANNELS))
        y = net.add("BatchNormalization", x, *parts, outputs=3, training_mode=1).split()[0]
    elif case == "clipped from below":
        y = net.add("Clip", x, net.constant(0.2), net.constant(6))
    elif case == "turned matrix":
        flat = net.add("Flatten", net.add("GlobalAveragePool", x))
        gram = net.add("MatMul", net.add("Transpose", flat, perm=[1, 0]), flat)
        mean = net.add("Reshape", net.add("ReduceMean", gram, axes=[0], keepdims=1),
                       net.constant([1, CHANNELS, 1, 1], np.int64))  # fmt: skip
        y = net.add("Add", net.conv(x), mean)
    elif case == "turned by Gemm":
        flat = net.add("Flatten", net.add("GlobalAveragePool", x))
        mean = net.add("Gemm", flat, net.random(len(inputs()), 1), transA=1)
        shape = net.constant([1, CHANNELS, 1, 1], np.int64)
        y = net.add("Add", net.conv(x), net.add("Reshape", mean, shape))
    elif case == "a constant divided by it":
        y = net.add("Div", net.constant(1), net.add("Add", x, net.constant(1)))
    elif case == "resized from outside":
        region = net.constant([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5])
        y = net.conv(net.add("Resize", x, region, net.constant([1] * 4), mode="linear",
                             coordinate_transformation_mode="tf_crop_and_resize",
                             extrapolation_value=3.0))  # fmt: skip
    elif case == "divided by it":
        y = net.add("Div", net.conv("x"), net.add("Add", x, net.constant(1)))
    else:
        y = net.add("Mul", net.add("Dropout", x), net.add("Sigmoid", x))
    found = folded(net.head(net.relu(net.conv(y))))
    assert x in found.kept


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(
    "case", ["one bounded", "two convolutions", "a residual sum", "a sum of two", "LeakyRelu"]
)
def test_maps_side_by_side_have_scales_that_differ_by_position(case: str, axis: int) -> None:
    net = Net()
    first, second = net.conv("x"), net.conv("x")
    one, two = net.relu(first), net.relu(second)
    if case == "one bounded":
        y = net.add("Concat", one, second, axis=axis)
    elif case == "two convolutions":
        y = net.add("Concat", net.conv(one), net.conv(two), axis=axis)
    elif case == "LeakyRelu":
        y = net.add("LeakyRelu", net.add("Concat", one, second, axis=axis))
    else:
        y = net.add("Concat", one, two, axis=axis)
        other = net.add("Concat", two, one, axis=axis)
        y = net.add("Add", y, net.conv(y) if case == "a residual sum" else other)
    proto = net.head(net.relu(net.conv(net.relu(y))))
    assert folded(proto).folded
    folded(proto, depthwise=False)


def test_weights_that_would_vanish_are_not_scaled() -> None:
    net = Net()
    weight = net.rng.normal(size=(CHANNELS, CHANNELS, 1, 1)) * 1e-38
    y = net.add("Conv", "x", net.constant(weight))
    x = net.relu(net.add("Mul", y, net.constant(1e38)))
    found = folded(net.head(net.relu(net.conv(x))))
    assert "w0" in {tensor.name for tensor in found.proto.graph.initializer}


def _random_net(seed: int) -> tuple[onnx.ModelProto, int]:
    """A random net of eight channels, of whatever passes, joins, splits or absorbs scales."""
    net = Net(seed, opset=17)
    rng = np.random.default_rng(1000 + seed)
    values = [net.relu(net.conv("x"))]

    def shuffle(x: str) -> str:
        shape = net.constant([0, 2, CHANNELS // 2, SIZE, SIZE], np.int64)
        back = net.constant([0, CHANNELS, SIZE, SIZE], np.int64)
        swapped = net.add("Transpose", net.add("Reshape", x, shape), perm=[0, 2, 1, 3, 4])
        return net.add("Reshape", swapped, back)

    def split(x: str) -> str:
        first, second = net.add("Split", x, outputs=2, axis=1).split()
        made = net.relu(net.conv(second, CHANNELS // 2, CHANNELS // 2))
        return net.add("Concat", made, first, axis=1)

    def sliced(x: str) -> str:
        cut = [net.constant(v, np.int64) for v in ([1], [7], [1], [2])]
        part = net.add("Slice", x, *cut)  # channels 1, 3, 5
        whole = net.conv(part, CHANNELS, 3)
        return net.relu(whole)

    def gate(x: str) -> str:
        pooled = net.add("GlobalAveragePool", x)
        squeezed = net.relu(net.add("Conv", pooled, net.random(4, CHANNELS, 1, 1)))
        raised = net.add("Conv", squeezed, net.random(CHANNELS, 4, 1, 1))
        return net.add("Mul", x, net.add("Sigmoid", raised))

    def normalize(x: str) -> str:
        parts = [net.positive(CHANNELS), net.random(CHANNELS), net.random(CHANNELS)]
        return net.add("BatchNormalization", x, *parts, net.positive(CHANNELS))

    def transposed(x: str) -> str:
        weight = net.random(CHANNELS, CHANNELS // 2, 3, 3)
        return net.add("ConvTranspose", x, weight, net.random(CHANNELS), pads=[1] * 4, group=2)

    def last(x: str) -> str:
        moved = net.add("Transpose", x, perm=[0, 2, 3, 1])
        made = net.add("MatMul", moved, net.random(CHANNELS, CHANNELS))
        added = net.relu(net.add("Add", net.random(CHANNELS), made))
        return net.add("Transpose", added, perm=[0, 3, 1, 2])

    def pooled(x: str) -> str:
        kind = ("MaxPool", "AveragePool")[int(rng.integers(2))]
        return net.add(kind, x, kernel_shape=[3, 3], pads=[1] * 4)

    def padded(x: str) -> str:
        pads = net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        weight = net.random(CHANNELS, CHANNELS // 4, 3, 3)
        return net.relu(net.add("Conv", net.add("Pad", x, pads), weight, group=4))

    steps = [
        lambda x: net.relu(net.conv(x)),
        lambda x: net.relu(net.conv(x, group=CHANNELS)),
        lambda x: net.relu(net.add("Add", net.conv(x), x)),
        lambda x: net.relu(net.add("Sum", x, values[0], net.conv(x))),
        lambda x: net.add("Sub", net.conv(x), x),
        lambda x: net.relu(normalize(x)),
        lambda x: net.relu(transposed(x)),
        lambda x: net.add("LeakyRelu", normalize(net.conv(x))),
        lambda x: net.add("Mul", x, net.positive(1, CHANNELS, 1, 1)),
        lambda x: net.relu(net.add("Add", x, net.random(CHANNELS, 1, 1))),
        lambda x: net.add("Elu", net.conv(x)),
        shuffle, split, sliced, gate, last, pooled, padded,
    ]  # fmt: skip
    for _ in range(int(rng.integers(3, 9))):
        values.append(steps[int(rng.integers(len(steps)))](values[int(rng.integers(len(values)))]))
    joined = net.add("Concat", *values[-2:], axis=1)
    return net.head(joined, 2 * CHANNELS), len(values)


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_random_nets_compute_the_same(seed: int, depthwise: bool) -> None:
    proto, _ = _random_net(seed)
    folded(proto, bounds_of(proto, seed), depthwise=depthwise)


def test_most_bounds_of_random_nets_are_folded() -> None:
    nets = [_random_net(seed)[0] for seed in range(60)]
    results = [fold_bounds(net, find_sites(net).sites, bounds_of(net)) for net in nets]
    done, left = (sum(len(getattr(r, what)) for r in results) for what in ("folded", "kept"))
    assert done > 4 * left


def test_factors_of_one_class_have_one_number() -> None:
    factors = Factors()
    first, second, third = (factors.new((3,)) for _ in range(3))
    factors.unite(first, second[:1])
    assert len(set(factors.roots(first).tolist())) == 1
    assert len(set(factors.roots(second).tolist())) == 3
    factors.unite(second, third)
    factors.fix(third[0])
    assert factors.roots(first).tolist() == [0, 0, 0]
    assert factors.roots(third)[0] == 0
    assert (factors.roots(third)[1:] == factors.roots(second)[1:]).all()
    assert 0 not in factors.roots(third)[1:]


def test_a_record_is_read_as_it_was_written() -> None:
    bounds = Bounds({"a": np.float32([1.5, 2.25]), "b": np.asarray(3, np.float32)})
    found = read_record({FOLDED: Record(bounds, True, ("logits",)).write()})
    assert found is not None
    assert (found.depthwise, found.unscaled) == (True, ("logits",))
    assert {name: (b.shape, b.tolist()) for name, b in found.bounds.items()} == {
        "a": ((2,), [1.5, 2.25]),
        "b": ((), 3.0),
    }
    assert read_record({}) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"depthwise":true,"unscaled":[],"bounds":{"a":[1,"?"]}}',
        '{"depthwise":true,"unscaled":[],"bounds":{"a":[1,"AAAA"]}}',
        '{"depthwise":true,"unscaled":[],"bounds":{"a":[1,"AAAAAA=="]}}',
        '{"depthwise":true,"unscaled":[],"bounds":{"a":[0,"AACAPwAAgD8="]}}',
        '{"depthwise":true,"unscaled":[],"bounds":{"a":["AACAPw=="]}}',
        '{"depthwise":true,"unscaled":[],"bounds":{"a":[1,""]}}',
    ],
)
def test_a_record_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RewriteError, match="cannot be read"):
        read_record({FOLDED: text})
