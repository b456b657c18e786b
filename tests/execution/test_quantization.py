"""Quantized integers against ONNX Runtime, halves and limits included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from operator_checks import assert_agrees, by_executor, noise, one_node

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.executor import GraphExecutor

INTEGERS = [np.uint8, np.int8]


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_quantize_per_tensor(integer: type, opset: int) -> None:
    x = np.concatenate([noise(50) * 100, np.arange(-8, 9) / 4]).astype(np.float32)
    model = one_node("QuantizeLinear", x, np.float32(0.5), integer(3), opset=opset)
    assert_agrees(model, x, tolerance=0)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("integer", INTEGERS)
def test_quantize_per_axis(integer: type, axis: int) -> None:
    x = noise(3, 4, 5) * 20
    n = x.shape[axis]
    scale = (np.arange(n) + 1).astype(np.float32) / 4
    zero = np.arange(n).astype(integer)
    model = one_node("QuantizeLinear", x, scale, zero, opset=13, axis=axis)
    assert_agrees(model, x, tolerance=0)


@pytest.mark.parametrize("integer", [np.uint16, np.int16])
def test_16_bit(integer: type) -> None:
    x = noise(20) * 50000
    model = one_node("QuantizeLinear", x, np.float32(0.5), integer(3), opset=21)
    assert_agrees(model, x, tolerance=0)
    y = by_executor(model, x)[0]
    assert_agrees(one_node("DequantizeLinear", y, np.float32(0.5), integer(3), opset=21), y)


def test_without_zero_point_it_makes_uint8() -> None:
    x = noise(10) * 100
    assert_agrees(one_node("QuantizeLinear", x, np.float32(0.5), opset=13), x, tolerance=0)


@pytest.mark.parametrize("integer", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_dequantize(integer: type, axis: int | None) -> None:
    x = np.random.default_rng(0).integers(0, 127, (3, 4, 5)).astype(integer)
    if axis is None:
        model = one_node("DequantizeLinear", x, np.float32(0.3), integer(0), opset=10)
    else:
        n = x.shape[axis]
        scale = (np.arange(n) + 1).astype(np.float32) / 4
        zero = None if integer is np.int32 else np.arange(n).astype(integer)
        model = one_node("DequantizeLinear", x, scale, zero, opset=13, axis=axis)
    assert_agrees(model, x)


def test_dequantize_in_blocks() -> None:
    x = np.arange(-12, 12).reshape(4, 6).astype(np.int8)
    scale, zero = np.abs(noise(2, 6)) + np.float32(0.1), np.ones((2, 6), np.int8)
    model = one_node("DequantizeLinear", x, scale, zero, opset=21, axis=0, block_size=2)
    assert_agrees(model, x)


def test_dynamic_quantize() -> None:
    for x in (noise(4, 5), np.abs(noise(4, 5)), -np.abs(noise(4, 5))):
        model = one_node("DynamicQuantizeLinear", x, opset=11, outputs=("y", "scale", "zero"))
        assert_agrees(model, x)


def test_quantized_values_carry_no_gradient() -> None:
    x = torch.from_numpy(noise(4)).requires_grad_()
    model = one_node("QuantizeLinear", x.detach().numpy(), np.float32(0.5), np.int8(0), opset=13)
    result = GraphExecutor(model).run({"x": x}, ["y"])["y"]
    assert not result.requires_grad


def test_refuses_a_scale_that_fits_no_axis() -> None:
    x = noise(3, 4)
    model = one_node("QuantizeLinear", x, np.ones(4, np.float32), np.ones(4, np.int8), opset=13)
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
    with pytest.raises(ModelError, match="does not fit"):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
