"""Pad against ONNX Runtime: all modes, several axes, negative widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_checks import assert_agrees, assert_differentiable, assert_maps, noise, one_node

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.executor import GraphExecutor

WIDTHS = [
    [0, 0, 1, 2, 0, 0, 2, 1],
    [0, 1, 2, 0, 1, 2, 0, 3],
    [1, 0, 3, 0, 0, 2, 0, 1],
    [0, 0, -1, 2, 0, 0, 0, -2],
    [0, -1, -1, -1, 0, 0, -2, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_pad(mode: str, widths: list[int]) -> None:
    x = noise(2, 3, 4, 5)
    assert_agrees(one_node("Pad", x, opset=2, mode=mode, pads=widths, value=1.5), x)
    pads = np.array(widths, np.int64)
    for opset in (11, 13, 18, 21):
        model = one_node("Pad", x, pads, np.float32(-2.5), opset=opset, mode=mode)
        assert_agrees(model, x)


@pytest.mark.parametrize("widths", WIDTHS[:3], ids=str)
def test_wrap(widths: list[int]) -> None:
    x = noise(2, 3, 4, 5)
    model = one_node("Pad", x, np.array(widths, np.int64), opset=19, mode="wrap")
    assert_agrees(model, x)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_crops_before_it_repeats(mode: str) -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 5)
    model = one_node("Pad", x, np.array([0, 2, 0, -1], np.int64), opset=19, mode=mode)
    ours = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])["y"]
    expected = {"reflect": [2, 1], "edge": [0, 0], "wrap": [2, 3]}[mode] + [0, 1, 2, 3]
    assert ours[0].tolist() == expected


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("axes", [[2, 3], [-1, 1]], ids=str)
def test_axes(mode: str, axes: list[int]) -> None:
    x = noise(2, 3, 4, 5)
    pads = np.array([1, 2, 0, 1], np.int64)
    model = one_node("Pad", x, pads, None, np.array(axes, np.int64), opset=18, mode=mode)
    assert_agrees(model, x)


def test_pads_integers_and_booleans() -> None:
    pads = np.array([0, 1, 1, 0], np.int64)
    for x in (np.arange(6).reshape(2, 3), np.ones((2, 3), bool)):
        assert_agrees(one_node("Pad", x, pads, np.array(1, x.dtype), opset=13), x)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_maps_and_differentiates(mode: str) -> None:
    x = noise(1, 2, 3, 4, dtype=np.float64)
    pads = np.array([0, 1, 2, 1, 0, 0, 1, 2], np.int64)
    model = one_node("Pad", x, pads, opset=19, mode=mode)
    assert_maps(model, x)
    assert_differentiable(model, x)


def test_refuses_a_reflection_longer_than_its_axis() -> None:
    x = noise(1, 3)
    model = one_node("Pad", x, np.array([0, 3, 0, 0], np.int64), opset=13, mode="reflect")
    with pytest.raises(ModelError, match="too short"):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
