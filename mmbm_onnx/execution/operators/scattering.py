"""Writing parts of tensors by index; the result is always a new tensor."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.operators.arguments import counted
from mmbm_onnx.execution.operators.indexing import flat_index, from_zero
from mmbm_onnx.execution.registry import NodeView, operator

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scattered(x: Tensor, axis: int, index: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.scatter(x, axis, index, updates)
    if reduction not in _REDUCTIONS:
        raise UnsupportedOperatorError(f"reduction {reduction!r} is not in the ONNX specification")
    return torch.scatter_reduce(x, axis, index, updates, _REDUCTIONS[reduction])


@operator("Scatter", since=9, attributes=("axis",))
@operator("ScatterElements", since=11, attributes=("axis",))
@operator("ScatterElements", since=16, attributes=("axis", "reduction"))
def scatter_elements(node: NodeView, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """``x`` with every element of ``updates`` written at ``index`` along ``axis``."""
    axis = counted(node.attributes["axis"], x.ndim)
    places = from_zero(index, x.shape[axis])
    return _scattered(x, axis, places, updates, node.get("reduction", "none"))


@operator("ScatterND", since=11)
@operator("ScatterND", since=16, attributes=("reduction",))
def scatter_nd(node: NodeView, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """``x`` with the slices that the index tuples (last axis of ``index``) name overwritten."""
    depth = index.shape[-1]
    lengths, rest = x.shape[:depth], x.shape[depth:]
    rows = x.reshape(prod(lengths), prod(rest))
    places = flat_index(index, tuple(lengths)).reshape(-1, 1)
    places = places.expand(places.shape[0], prod(rest))
    written = updates.reshape(places.shape)
    result = _scattered(rows, 0, places, written, node.get("reduction", "none"))
    return result.reshape(x.shape)
