"""Normalization against ONNX Runtime; training modes are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from operator_checks import assert_agrees, assert_differentiable, assert_maps, noise, one_node

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.executor import GraphExecutor

SHAPES = [(2, 4), (3, 4, 5), (2, 4, 5, 3), (2, 4, 3, 2, 3)]


def statistics(channels: int, dtype: Any = np.float32) -> list[np.ndarray]:
    scale, bias, mean = (noise(channels, seed=seed, dtype=dtype) for seed in (1, 2, 3))
    return [scale, bias, mean, np.abs(noise(channels, seed=4, dtype=dtype)) + dtype(0.1)]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_normalization(opset: int, shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    model = one_node("BatchNormalization", x, *statistics(4), opset=opset, epsilon=1e-3)
    assert_agrees(model, x)
    assert_maps(model, x)


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs"),
    [
        (6, {"is_test": 0}, ("y",)),
        (7, {"spatial": 0}, ("y",)),
        (9, {}, ("y", "mean", "variance", "saved_mean", "saved_variance")),
        (15, {"training_mode": 1}, ("y", "mean", "variance")),
    ],
    ids=str,
)
def test_refuses_batch_normalization_in_training(
    opset: int, attributes: dict[str, int], outputs: tuple[str, ...]
) -> None:
    x = noise(2, 4, 3, 3)
    model = one_node(
        "BatchNormalization", x, *statistics(4), opset=opset, outputs=outputs, **attributes
    )
    with pytest.raises(UnsupportedOperatorError):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])


def test_batch_normalization_of_opset_6_needs_the_test_flag() -> None:
    x = noise(2, 4, 3, 3)
    scale, bias, mean, variance = statistics(4)
    model = one_node(
        "BatchNormalization", x, scale, bias, mean, variance, opset=6, is_test=1, epsilon=1e-3
    )
    ours = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])["y"].numpy()
    columns = [value.reshape(4, 1, 1) for value in (scale, bias, mean, variance)]
    expected = (x - columns[2]) / np.sqrt(columns[3] + 1e-3) * columns[0] + columns[1]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [6, 22])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 4, 5, 3), (2, 4, 3, 2, 3), (2, 4, 1)], ids=str)
def test_instance_normalization(opset: int, shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    scale, bias = noise(4, seed=1), noise(4, seed=2)
    model = one_node("InstanceNormalization", x, scale, bias, opset=opset, epsilon=1e-2)
    assert_agrees(model, x)


@pytest.mark.parametrize("axis", [-1, -2, 1, 2, 0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_layer_normalization(axis: int, with_bias: bool) -> None:
    x = noise(2, 3, 4, 5)
    tail = x.shape[axis:]
    constants = [noise(*tail, seed=1)] + [noise(*tail, seed=2)] * with_bias
    outputs = ("y", "mean", "inverse")
    model = one_node("LayerNormalization", x, *constants, opset=17, axis=axis, outputs=outputs)
    assert_agrees(model, x)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization(opset: int) -> None:
    x = noise(2, 6, 4, 3)
    entries = 3 if opset == 18 else 6
    scale, bias = noise(entries, seed=1), noise(entries, seed=2)
    model = one_node("GroupNormalization", x, scale, bias, opset=opset, num_groups=3)
    assert_maps(model, x)
    if opset == 21:
        assert_agrees(model, x)
    parts = torch.nn.functional.group_norm(torch.from_numpy(x), 3).numpy()
    wide = [np.repeat(v, 6 // entries)[:, None, None] for v in (scale, bias)]
    ours = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])["y"].numpy()
    np.testing.assert_allclose(ours, parts * wide[0] + wide[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalization(axis: int) -> None:
    x = noise(2, 3, 4)
    model = one_node("RMSNormalization", x, noise(*x.shape[axis:], seed=1), opset=23, axis=axis)
    assert_agrees(model, x)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 7, 4, 4), (1, 2, 3, 3)], ids=str)
def test_lrn(size: int, shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    model = one_node("LRN", x, opset=13, size=size, alpha=0.1, beta=0.6, bias=1.5)
    assert_agrees(model, x)
    assert_maps(model, x)


def test_lrn_of_an_even_size_reaches_one_channel_further_up_than_down() -> None:
    x = np.zeros((1, 4, 1, 1), np.float32)
    x[0, :, 0, 0] = 1, 2, 4, 8
    model = one_node("LRN", x, opset=13, size=2, alpha=2.0, beta=1.0, bias=0.0)
    ours = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])["y"].flatten()
    torch.testing.assert_close(ours, torch.tensor([1 / 5, 2 / 20, 4 / 80, 8 / 64]))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_lp_normalization(p: int, axis: int) -> None:
    x = noise(3, 4, 2)
    x[1] = 0
    assert_agrees(one_node("LpNormalization", x, opset=11, p=p, axis=axis), x)


@pytest.mark.parametrize("attributes", [{}, {"axes": [2, 3]}, {"axes": [1]}], ids=str)
def test_mean_variance_normalization(attributes: dict[str, list[int]]) -> None:
    x = noise(2, 3, 4, 5)
    for opset in (9, 13):
        model = one_node("MeanVarianceNormalization", x, opset=opset, **attributes)
        assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize(
    ("op_type", "constants", "attributes"),
    [
        ("BatchNormalization", 4, {}),
        ("InstanceNormalization", 2, {}),
        ("GroupNormalization", 2, {"num_groups": 2}),
        ("LRN", 0, {"size": 3, "alpha": 0.5}),
        ("LpNormalization", 0, {"axis": 1}),
        ("MeanVarianceNormalization", 0, {}),
    ],
)
def test_differentiates(op_type: str, constants: int, attributes: dict[str, Any]) -> None:
    x = noise(2, 4, 2, 3, dtype=np.float64)
    parts = statistics(4, np.float64)[:constants]
    assert_differentiable(one_node(op_type, x, *parts, opset=21, **attributes), x)


def test_layer_normalization_maps_and_differentiates() -> None:
    x = noise(2, 3, 4, dtype=np.float64)
    scale = noise(4, seed=1, dtype=np.float64)
    model = one_node("LayerNormalization", x, scale, opset=17)
    assert_maps(model, x)
    assert_differentiable(model, x)
