"""The classifier: bounds, taps, fixed and dynamic batches, gradients through both."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

from mmbm_onnx.errors import DataError, ModelError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.types import Interface, Site

CHANNELS, CLASSES = 4, 3
FLOAT = np.dtype(np.float32)


def network(batch: int | None, *, softmax: bool = False, tail: str = "") -> onnx.ModelProto:
    """Convolution, ReLU, ReLU6, mean, linear layer; ``tail`` comes after the ReLU."""
    size = "N" if batch is None else str(batch)
    end = "probabilities = Softmax <axis = 1> (logits)" if softmax else ""
    output = "probabilities" if softmax else "logits"
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[{size}, 2, 6, 6] x) => (float[{size}, {CLASSES}] {output}) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            first = Relu(a)
            {tail}
            b = Conv (first, w2)
            second = Clip(b, zero, six)
            pooled = ReduceMean <axes = [2, 3], keepdims = 0> (second)
            logits = Gemm <transB = 1> (pooled, w3)
            {end}
        }}
        """
    )
    random = np.random.default_rng(3)
    for name, shape, scale in (
        ("w1", (CHANNELS, 2, 3, 3), 0.5),
        ("w2", (CHANNELS, CHANNELS, 3, 3), 0.5),
        ("w3", (CLASSES, CHANNELS), 1.0),
    ):
        value = (random.standard_normal(shape) * scale).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for name, number in (("zero", 0), ("six", 6)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(number), name))
    return model


SITES = (
    Site("first", "Relu", FLOAT, 4, 1, CHANNELS),
    Site("second", "Clip", FLOAT, 4, 1, CHANNELS, upper=6.0),
)


def classifier(batch: int | None, *, softmax: bool = False, tail: str = "") -> Classifier:
    output = "probabilities" if softmax else "logits"
    interface = Interface(
        "x",
        FLOAT,
        (batch, 2, 6, 6),
        batch,
        output,
        "logits",
        CLASSES,
        "softmax" if softmax else "logits",
    )
    return Classifier(network(batch, softmax=softmax, tail=tail), interface, SITES)


def samples(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def bounds() -> dict[str, torch.Tensor]:
    return {
        "first": torch.tensor([0.4, 0.8, 0.2, 0.6], requires_grad=True),
        "second": torch.tensor(0.5, requires_grad=True),
    }


def by_hand(x: torch.Tensor, limits: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same network in plain torch, bounds included."""
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in network(None).graph.initializer
    }
    first = torch.relu(torch.nn.functional.conv2d(x, weights["w1"], padding=1))
    if "first" in limits:
        first = torch.minimum(first, limits["first"].reshape(1, -1, 1, 1))
    second = torch.nn.functional.conv2d(first, weights["w2"]).clamp(0, 6)
    if "second" in limits:
        second = torch.minimum(second, limits["second"])
    return second.mean((2, 3)) @ weights["w3"].T


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_logits_without_bounds(batch: int | None, softmax: bool) -> None:
    x = samples()
    logits = classifier(batch, softmax=softmax).logits(x)
    torch.testing.assert_close(logits, by_hand(x, {}))


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_logits_and_gradients_with_bounds(batch: int | None, count: int) -> None:
    x, ours = samples(count).requires_grad_(), bounds()
    y, theirs = samples(count).requires_grad_(), bounds()
    logits, expected = classifier(batch).logits(x, ours), by_hand(y, theirs)
    torch.testing.assert_close(logits, expected)

    weights = torch.arange(1.0, CLASSES + 1)
    (logits.square() @ weights).sum().backward()
    (expected.square() @ weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for name in ours:
        assert ours[name].grad is not None
        assert ours[name].grad.abs().max() > 0
        torch.testing.assert_close(ours[name].grad, theirs[name].grad)


def test_bounds_change_the_logits_only_where_given() -> None:
    x, net = samples(), classifier(None)
    free = net.logits(x)
    assert not torch.allclose(net.logits(x, {"first": torch.full((CHANNELS,), 0.1)}), free)
    torch.testing.assert_close(net.logits(x, {"first": torch.full((CHANNELS,), 1e6)}), free)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_taps_come_after_their_bounds_for_every_sample(batch: int | None) -> None:
    x, net, limits = samples(), classifier(batch), bounds()
    logits, values = net.logits(x, limits, taps=["first", "a"])
    torch.testing.assert_close(logits, by_hand(x, limits))
    assert set(values) == {"first", "a"}
    assert values["first"].shape == (6, CHANNELS, 6, 6)
    highest = values["first"].amax((0, 2, 3))
    torch.testing.assert_close(highest, limits["first"].detach())
    torch.testing.assert_close(values["a"], classifier(None).logits(x, taps=["a"])[1]["a"])


@pytest.mark.parametrize("batch", [None, 1])
def test_taps_in_branches_hold_the_samples_that_take_them(batch: int | None) -> None:
    length = "N" if batch is None else batch
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[{length}, 3] x) => (float[{length}, 3] logits) <float half = {{0.5}}> {{
            highest = ReduceMax <keepdims = 0> (x)
            bright = Greater (highest, half)
            logits = If (bright) <
                then_branch = yes () => (float[{length}, 3] a) {{ a = Relu(x) }},
                else_branch = no () => (float[{length}, 3] b) {{ b = Relu(x) }}
            >
        }}
        """
    )
    shape = (batch, 3)
    interface = Interface("x", FLOAT, shape, batch, "logits", "logits", 3)
    net = Classifier(model, interface, find_sites(model).sites)
    dark, bright = torch.full((2, 3), 0.25), torch.full((1, 3), 0.75)
    assert set(net.logits(dark, taps=["a", "b"])[1]) == {"b"}
    if batch == 1:
        x = torch.cat([dark, bright])
        logits, values = net.logits(x, {"a": torch.tensor(0.6)}, taps=["a", "b"])
        assert values["a"].tolist() == [[pytest.approx(0.6)] * 3]
        assert values["b"].tolist() == dark.tolist()
        torch.testing.assert_close(logits, x.clamp(max=0.6))


def test_no_taps_asked_for_is_not_the_same_as_none() -> None:
    assert isinstance(classifier(None).logits(samples()), torch.Tensor)
    assert classifier(None).logits(samples(), taps=[])[1] == {}


def test_fixed_batches_run_all_at_once_where_they_can() -> None:
    net = classifier(1)
    assert net.batches_groups is None
    net.logits(samples())
    assert net.batches_groups is True


DATA_DEPENDENT = """
    total = ReduceSum <keepdims = 0> (first)
    large = Greater(total, six)
    first2 = If (large) <
        then_branch = t () => (float t1) { t1 = Identity(first) },
        else_branch = e () => (float e1) { e1 = Neg(first) }
    >
"""


def test_what_cannot_be_batched_runs_group_by_group() -> None:
    x, limits = samples(), bounds()
    net = classifier(1, tail=DATA_DEPENDENT.replace("first2", "ignored"))
    # Used, so that the condition is really read.
    logits, values = net.logits(x, limits, taps=["ignored"])
    assert net.batches_groups is False
    assert values["ignored"].shape == (6, CHANNELS, 6, 6)
    torch.testing.assert_close(logits, by_hand(x, limits))
    logits.sum().backward()
    assert limits["first"].grad is not None
    assert limits["first"].grad.abs().max() > 0


def test_a_wrong_batched_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.func.vmap
    monkeypatch.setattr(
        torch.func,
        "vmap",
        lambda run: lambda groups: {n: value + 1 for n, value in real(run)(groups).items()},
    )
    net, x = classifier(1), samples()
    torch.testing.assert_close(net.logits(x), by_hand(x, {}))
    assert net.batches_groups is False


def test_channels_may_be_on_the_last_axis() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 5, 3] x) => (float[N, 3] logits) {
            act = Relu(x)
            logits = ReduceMax <axes = [1], keepdims = 0> (act)
        }
        """
    )
    interface = Interface("x", FLOAT, (None, 5, 3), None, "logits", "logits", 3)
    net = Classifier(model, interface, [Site("act", "Relu", FLOAT, 3, 2, 3)])
    logits = net.logits(torch.full((2, 5, 3), 9.0), {"act": torch.tensor([1.0, 2.0, 3.0])})
    assert logits.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_bounds_of_unknown_sites_are_refused() -> None:
    with pytest.raises(ModelError, match="'a' is not a site"):
        classifier(None).logits(samples(), {"a": torch.tensor(1.0)})


@pytest.mark.parametrize("shape", [(CHANNELS + 1,), (1, CHANNELS)])
def test_bounds_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="'first'"):
        classifier(None).logits(samples(), {"first": torch.ones(shape)})


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        classifier(1).logits(samples()[:0])


def test_logits_of_another_shape_are_refused() -> None:
    interface = Interface("x", FLOAT, (None, 2, 6, 6), None, "logits", "first", CLASSES)
    with pytest.raises(ModelError, match="'first' have shape"):
        Classifier(network(None), interface, SITES).logits(samples())
