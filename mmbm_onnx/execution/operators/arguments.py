"""Small readers of arguments that the operator families share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView

_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def integers(tensor: Tensor) -> list[int]:
    """The elements of a CPU integer tensor of any shape, in order."""
    return [int(value) for value in tensor.reshape(-1).tolist()]


def integer(tensor: Tensor) -> int:
    """The one element of a CPU integer tensor of shape () or (1,)."""
    return int(tensor.reshape(()).item())


def counted(axis: int, rank: int) -> int:
    """``axis`` counted from 0.

    Raises:
        ModelError: It is outside a tensor of ``rank`` axes.
    """
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is outside a tensor of {rank} axes")
    return axis % rank


def counted_all(axes: Sequence[int], rank: int) -> list[int]:
    """All ``axes`` counted from 0.

    Raises:
        ModelError: One is outside a tensor of ``rank`` axes, or given twice.
    """
    result = [counted(axis, rank) for axis in axes]
    if len(set(result)) != len(result):
        raise ModelError(f"an axis is given twice in {list(axes)}")
    return result


def dtype_of(node: NodeView, elem_type: int) -> torch.dtype:
    """The torch dtype that ONNX element type ``elem_type`` is executed in.

    Raises:
        UnsupportedOperatorError: torch has no such type.
    """
    try:
        return node.torch_dtype(elem_type)
    except KeyError:
        raise UnsupportedOperatorError(
            f"element type {elem_type} (TensorProto.DataType) has no torch counterpart"
        ) from None


def widened(tensor: Tensor) -> Tensor:
    """uint16, uint32 and uint64 as int64 (modulo 2**64), for which torch has all arithmetic."""
    return tensor.to(torch.int64) if tensor.dtype in _WIDE_UNSIGNED else tensor


def ordered(tensor: Tensor) -> Tensor:
    """Like ``widened``, but in the same order as the unsigned values; its own inverse on int64."""
    wide = widened(tensor)
    return flipped(wide) if tensor.dtype == torch.uint64 else wide


def flipped(wide: Tensor) -> Tensor:
    """The int64 tensor with its sign bits flipped: order of uint64 becomes order of int64."""
    return torch.bitwise_xor(wide, torch.iinfo(torch.int64).min)
