"""Pooling against ONNX Runtime: padding, partial windows, dilation, indices."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from operator_checks import (
    assert_agrees,
    assert_differentiable,
    assert_maps,
    by_executor,
    noise,
    one_node,
)

from mmbm_onnx.execution.executor import GraphExecutor

SIZES = {1: (9,), 2: (8, 7), 3: (6, 5, 7)}
PADS = [{}, {"pads": (1, 1)}, {"pads": (0, 1)}, {"pads": (1, 0)}]
AUTO_PADS = [{"auto_pad": word} for word in ("SAME_UPPER", "SAME_LOWER", "VALID")]


def attributes_of(axes: int, kernel: int, stride: int, padding: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes}
    for name, value in padding.items():
        given[name] = [value[0]] * axes + [value[1]] * axes if name == "pads" else value
    return given


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("padding", PADS + AUTO_PADS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 2), (3, 3)])
def test_max_pool(axes: int, padding: dict[str, Any], kernel: int, stride: int) -> None:
    x = noise(2, 3, *SIZES[axes])
    given = attributes_of(axes, kernel, stride, padding)
    assert_agrees(one_node("MaxPool", x, opset=8, **given), x)
    assert_agrees(one_node("MaxPool", x, opset=12, **given), x)
    assert_agrees(one_node("MaxPool", x, opset=12, outputs=("y", "indices"), **given), x)


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("padding", PADS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 3), (3, 3), (2, 4)])
def test_max_pool_rounding_up(size: int, padding: dict[str, Any], kernel: int, stride: int) -> None:
    x = noise(1, 2, size, 13 - size)
    given = attributes_of(2, kernel, stride, padding)
    assert_agrees(one_node("MaxPool", x, opset=10, ceil_mode=1, **given), x)


def test_max_pool_of_negative_numbers_never_picks_padding() -> None:
    x = -1 - np.abs(noise(1, 1, 4, 4))
    model = one_node("MaxPool", x, opset=12, kernel_shape=[3, 3], pads=[2, 2, 1, 0])
    assert_agrees(model, x)
    assert by_executor(model, x)[0].max() <= -1


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize("padding", [(1, 1), (0, 1)])
def test_max_pool_indices(storage_order: int, padding: tuple[int, int]) -> None:
    x = noise(2, 3, 6, 5)
    given = attributes_of(2, 2, 2, {"pads": padding})
    model = one_node(
        "MaxPool", x, opset=12, outputs=("y", "i"), storage_order=storage_order, **given
    )
    assert_agrees(model, x)


def test_max_pool_with_dilation() -> None:
    x = noise(1, 2, 9, 8)
    model = one_node(
        "MaxPool", x, opset=12, kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 0, 1]
    )
    assert_agrees(model, x)


def test_max_pool_of_8_bit_integers() -> None:
    x = np.random.default_rng(0).integers(-128, 127, (1, 2, 6, 6)).astype(np.int8)
    assert_agrees(one_node("MaxPool", x, opset=12, kernel_shape=[2, 2], pads=[1, 1, 0, 0]), x)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("padding", PADS + AUTO_PADS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 2), (3, 3)])
def test_average_pool(
    axes: int, include: int, padding: dict[str, Any], kernel: int, stride: int
) -> None:
    x = noise(2, 3, *SIZES[axes])
    given = attributes_of(axes, kernel, stride, padding)
    for opset in (7, 11, 19):
        assert_agrees(
            one_node("AveragePool", x, opset=opset, count_include_pad=include, **given), x
        )


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("padding", PADS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 3), (3, 3), (2, 4)])
def test_average_pool_rounding_up(
    size: int, include: int, padding: dict[str, Any], kernel: int, stride: int
) -> None:
    x = noise(1, 2, size, 10 - size // 2)
    given = attributes_of(2, kernel, stride, padding)
    for opset in (10, 19):
        model = one_node(
            "AveragePool", x, opset=opset, ceil_mode=1, count_include_pad=include, **given
        )
        assert_agrees(model, x)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("ceil", [0, 1])
def test_average_pool_with_dilation(include: int, ceil: int) -> None:
    x = noise(2, 2, 9, 8)
    model = one_node(
        "AveragePool",
        x,
        opset=19,
        kernel_shape=[3, 2],
        dilations=[2, 3],
        strides=[2, 2],
        pads=[1, 0, 0, 1],
        count_include_pad=include,
        ceil_mode=ceil,
    )
    assert_agrees(model, x)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(p: int) -> None:
    x = noise(2, 3, 8, 7)
    for opset, extra in product((11, 18), ({}, {"auto_pad": "SAME_UPPER"})):
        given = {"kernel_shape": [3, 2], "strides": [2, 2], "p": p, **extra}
        assert_agrees(one_node("LpPool", x, opset=opset, **given), x)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_global_pools(op_type: str, axes: int) -> None:
    x = noise(2, 3, *SIZES[axes])
    model = one_node(op_type, x, opset=11)
    assert_agrees(model, x)
    assert_maps(model, x)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_maps_and_differentiates(axes: int, op_type: str, dilation: int) -> None:
    x = noise(1, 2, *[5] * axes, dtype=np.float64)
    given = {"kernel_shape": [2] * axes, "strides": [2] * axes, "pads": [1] * axes + [0] * axes}
    model = one_node(op_type, x, opset=19, dilations=[dilation] * axes, **given)
    assert_maps(model, x)
    assert_differentiable(model, x)


def test_lp_pool_has_a_gradient_at_zero() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    leaf = torch.from_numpy(x).requires_grad_()
    for op_type, given in (("LpPool", {"kernel_shape": [2, 2]}), ("GlobalLpPool", {})):
        result = GraphExecutor(one_node(op_type, x, opset=18, **given)).run({"x": leaf}, ["y"])
        (gradient,) = torch.autograd.grad(result["y"].sum(), leaf)
        assert torch.isfinite(gradient).all()
