"""QuantizeLinear and DequantizeLinear to and from 8-, 16- and 32-bit integers.

Rounding passes no gradient: behind a QuantizeLinear the input's gradient is 0, as it truly is.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator

_RANGES = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.uint16: (0, 65535),
    torch.int16: (-32768, 32767),
}
_LIMITS = "8- and 16-bit integers (DequantizeLinear 32-bit too); no 4-bit and no float8 types"


def _spread(node: NodeView, value: Tensor, x: Tensor) -> Tensor:
    """Scale or zero point stretched so that it broadcasts against ``x``."""
    if value.numel() == 1:
        return value.reshape([1] * x.ndim)
    axis = int(node.get("axis", 1))
    if not -x.ndim <= axis < x.ndim:
        raise ModelError(f"axis {axis} is outside an input of {x.ndim} axes")
    axis %= x.ndim
    block = int(node.get("block_size", 0))
    if block and value.ndim == x.ndim:
        return value.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    if value.ndim != 1 or value.numel() != x.shape[axis]:
        raise ModelError(
            f"scale of shape {list(value.shape)} does not fit axis {axis} of {list(x.shape)}"
        )
    return value.reshape([-1 if other == axis else 1 for other in range(x.ndim)])


def _integer_type(node: NodeView, zero: Tensor | None) -> torch.dtype:
    if zero is not None:
        dtype = zero.dtype
    else:
        wanted = int(node.get("output_dtype", 0)) or onnx.TensorProto.UINT8
        try:
            dtype = node.torch_dtype(wanted)
        except KeyError:
            raise UnsupportedOperatorError(f"output_dtype {wanted}: {_LIMITS}") from None
    if dtype not in _RANGES:
        raise UnsupportedOperatorError(f"quantized type {dtype}: {_LIMITS}")
    return dtype


@operator("QuantizeLinear", since=10, limits=_LIMITS)
@operator("QuantizeLinear", since=13, attributes=("axis", "saturate"), limits=_LIMITS)
@operator(
    "QuantizeLinear",
    since=21,
    attributes=("axis", "block_size", "output_dtype", "precision", "saturate"),
    limits=_LIMITS,
)
def quantize_linear(node: NodeView, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """``round(x / scale) + zero``, halves to even, held within the integer type."""
    dtype = _integer_type(node, zero)
    low, high = _RANGES[dtype]
    precision = int(node.get("precision", 0))
    working = node.torch_dtype(precision) if precision else scale.dtype
    steps = torch.round(x.to(working) / _spread(node, scale.to(working), x))
    if zero is not None:
        steps = steps + _spread(node, zero.to(working), x)
    return steps.clamp(low, high).to(torch.int32).to(dtype)


@operator("DequantizeLinear", since=10, limits=_LIMITS)
@operator("DequantizeLinear", since=13, attributes=("axis",), limits=_LIMITS)
@operator(
    "DequantizeLinear",
    since=21,
    attributes=("axis", "block_size", "output_dtype"),
    limits=_LIMITS,
)
def dequantize_linear(
    node: NodeView, x: Tensor, scale: Tensor, zero: Tensor | None = None
) -> Tensor:
    """``(x - zero) * scale`` in the type of the output."""
    if x.dtype not in (*_RANGES, torch.int32):
        raise UnsupportedOperatorError(f"quantized type {x.dtype}: {_LIMITS}")
    wanted = int(node.get("output_dtype", 0))
    dtype = node.torch_dtype(wanted) if wanted else scale.dtype
    steps = x.to(torch.int32)
    if zero is not None:
        steps = steps - _spread(node, zero.to(torch.int32), x)
    return steps.to(dtype) * _spread(node, scale.to(dtype), x)


@operator("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(node: NodeView, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 values, scale and zero point from the range of the whole tensor, the batch included."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    width = (high - low) / 255
    scale = torch.where(width == 0, torch.ones_like(width), width)
    zero = torch.round((-low / scale).clamp(0, 255))
    steps = (torch.round(x / scale) + zero).clamp(0, 255)
    return steps.to(torch.uint8), scale, zero.to(torch.uint8)
