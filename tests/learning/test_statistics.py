from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning.statistics import above_bounds, activation_statistics, reached_sites


@pytest.fixture
def convolution():
    """Conv with weights 1 and -2, so that activations are known."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[N, 1, 2, 2] x) => (float[N, 2] logits)
        <float[2, 1, 1, 1] w = {1.0, -2.0}>
        {
            c = Conv (x, w)
            r = Relu (c)
            g = GlobalAveragePool (r)
            logits = Flatten (g)
        }
        """
    )
    sites = find_sites(proto).sites
    return Classifier(proto, find_interface(proto), sites), sites


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_statistics_per_channel_are_those_of_numpy(convolution, batch_size: int) -> None:
    classifier, sites = convolution
    x = np.random.default_rng(0).normal(size=(7, 1, 2, 2)).astype(np.float32)
    active = np.stack([np.maximum(x[:, 0], 0), np.maximum(-2 * x[:, 0], 0)])  # (2, 7, 2, 2)
    found = activation_statistics(classifier, torch.from_numpy(x), sites, "channel", batch_size)
    flat = active.reshape(2, -1)
    np.testing.assert_allclose(found["r"].mean, flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["r"].std, flat.std(1), rtol=1e-5)
    np.testing.assert_allclose(found["r"].maximum, flat.max(1), rtol=1e-6)


def test_statistics_per_tensor_are_scalars(convolution) -> None:
    classifier, sites = convolution
    x = np.random.default_rng(0).normal(size=(7, 1, 2, 2)).astype(np.float32)
    active = np.concatenate([np.maximum(x, 0), np.maximum(-2 * x, 0)])
    found = activation_statistics(classifier, torch.from_numpy(x), sites, "tensor", 4)
    assert found["r"].mean.shape == ()
    np.testing.assert_allclose(found["r"].mean, active.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["r"].maximum, active.max(), rtol=1e-6)


def test_what_lies_above_bounds_is_counted_under_each(convolution) -> None:
    classifier, sites = convolution
    x = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    # Channel 0: 1, 2, 3, 0; channel 1: 0, 0, 0, 8.
    found = above_bounds(classifier, x, sites, {"r": torch.tensor([1.5, 10.0])}, 8)["r"]
    assert found.share == pytest.approx(2 / 8)
    assert found.shares.tolist() == [0.5, 0.0]
    found = above_bounds(classifier, x, sites, {"r": torch.tensor(2.5)}, 8)["r"]
    assert found.share == pytest.approx(2 / 8)
    assert found.shares.tolist() == [0.25]


@pytest.fixture
def branching():
    """Three activations: one always runs, the others for bright and for dark batches."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 2] x) => (float[N, 2] logits) <float half = {0.5}> {
            always = Relu (x)
            highest = ReduceMax <keepdims = 0> (x)
            bright = Greater (highest, half)
            logits = If (bright) <
                then_branch = yes () => (float[N, 2] a) { a = Relu(always) },
                else_branch = no () => (float[N, 2] b) { b = Relu(always) }
            >
        }
        """
    )
    sites = find_sites(proto).sites
    assert [site.tensor for site in sites] == ["always", "a", "b"]
    return Classifier(proto, find_interface(proto), sites), sites


def test_sites_are_reached_if_any_batch_gets_there(branching) -> None:
    classifier, sites = branching
    dark, bright = torch.full((2, 2), 0.25), torch.full((2, 2), 0.75)

    def reached(*parts: torch.Tensor) -> list[str]:
        found = reached_sites(classifier, torch.cat(parts), sites, 2)
        return [site.tensor for site in found]

    assert reached(dark) == ["always", "b"]
    assert reached(bright) == ["always", "a"]
    assert reached(dark, bright) == reached(bright, dark) == ["always", "a", "b"]


def test_statistics_in_branches_are_of_the_batches_that_get_there(branching) -> None:
    classifier, sites = branching
    x = torch.cat([torch.full((2, 2), 0.25), torch.full((2, 2), 0.75)])
    found = activation_statistics(classifier, x, sites, "tensor", 2)
    means = {name: float(value.mean) for name, value in found.items()}
    assert means == pytest.approx({"always": 0.5, "a": 0.75, "b": 0.25})
    assert set(activation_statistics(classifier, x[:2], sites, "tensor", 2)) == {"always", "b"}
    bounds = {name: torch.tensor(0.5) for name in means}

    def shares(x: torch.Tensor) -> dict[str, float]:
        found = above_bounds(classifier, x, sites, bounds, 2)
        return {name: above.share for name, above in found.items()}

    assert shares(x) == {"always": 0.5, "a": 1.0, "b": 0.0}
    assert shares(x[:2])["a"] == 0.0
