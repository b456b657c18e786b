"""A network with a backdoor planted by hand: one hidden unit that clean inputs never wake."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.types import Samples

CLASSES = 4
TARGET = 0


@pytest.fixture(scope="session")
def planted_proto() -> onnx.ModelProto:
    """Inputs 0 to 3 speak for their class; input 4, above a third, shouts for class 0."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        planted (float[N, 5] x) => (float[N, 4] logits)
        <float[5, 5] w1 = {0}, float[5] b1 = {0}, float[5, 4] w2 = {0}>
        {
            hidden = Gemm (x, w1, b1)
            active = Relu (hidden)
            logits = MatMul (active, w2)
        }
        """
    )
    first = np.diag([1, 1, 1, 1, 10]).astype(np.float32)
    bias = np.array([0, 0, 0, 0, -3.2], np.float32)
    second = np.zeros((5, 4), np.float32)
    second[:4] = 4 * np.eye(4)
    second[4, TARGET] = 8
    weights = {"w1": first, "b1": bias, "w2": second}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    return proto


@pytest.fixture(scope="session")
def planted(planted_proto: onnx.ModelProto) -> Classifier:
    interface = find_interface(planted_proto)
    return Classifier(planted_proto, interface, find_sites(planted_proto).sites)


@pytest.fixture(scope="session")
def sites(planted_proto: onnx.ModelProto):
    return find_sites(planted_proto).sites


def draw(count: int, seed: int) -> Samples:
    """Clean inputs in [0, 1]; input 4 stays below 0.3."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = rng.uniform(0, 0.3, (count, 5)).astype(np.float32)
    x[np.arange(count), y] = rng.uniform(0.6, 1.0, count)
    return Samples(x, y.astype(np.int64))


@pytest.fixture
def clean() -> Samples:
    return draw(120, seed=1)


@pytest.fixture
def triggered() -> torch.Tensor:
    """Fresh inputs of the other classes with the trigger on them."""
    fresh = draw(80, seed=2)
    x = fresh.x[fresh.y != TARGET].copy()
    x[:, 4] = 1.0
    return torch.from_numpy(x)
