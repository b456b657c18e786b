"""Reading parts of tensors by index."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.operators.arguments import counted, counted_all, integer, integers
from mmbm_onnx.execution.registry import NodeView, operator


def from_zero(index: Tensor, length: int) -> Tensor:
    """Indices with negative ones counted from the end of an axis of ``length``, int64."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + length, index)


@operator("Gather", attributes=("axis",))
def gather(node: NodeView, x: Tensor, index: Tensor) -> Tensor:
    """The slices of ``x`` along ``axis`` that ``index`` names, in its shape."""
    axis = counted(node.attributes["axis"], x.ndim)
    places = from_zero(index, x.shape[axis]).reshape(-1)
    rows = x.index_select(axis, places)
    return rows.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@operator("GatherElements", since=11, attributes=("axis",))
def gather_elements(node: NodeView, x: Tensor, index: Tensor) -> Tensor:
    """For every place of ``index`` the element of ``x`` there, but at ``index`` along ``axis``."""
    axis = counted(node.attributes["axis"], x.ndim)
    return torch.gather(x, axis, from_zero(index, x.shape[axis]))


def flat_index(index: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Index tuples (..., k) over axes of ``lengths`` as one number each (...)."""
    flat = torch.zeros_like(index[..., 0], dtype=torch.int64)
    for place, length in enumerate(lengths):
        flat = flat * length + from_zero(index[..., place], length)
    return flat


@operator("GatherND", since=11, attributes=("batch_dims",))
def gather_nd(node: NodeView, x: Tensor, index: Tensor) -> Tensor:
    """The slices of ``x`` that the index tuples (last axis of ``index``) name."""
    shared, depth = int(node.get("batch_dims", 0)), index.shape[-1]
    lengths, rest = x.shape[shared : shared + depth], x.shape[shared + depth :]
    batches = prod(x.shape[:shared])
    flat = flat_index(index, tuple(lengths)).reshape(batches, -1)
    flat = flat + torch.arange(batches, device=flat.device).unsqueeze(1) * prod(lengths)
    rows = x.reshape(batches * prod(lengths), *rest).index_select(0, flat.reshape(-1))
    return rows.reshape((*index.shape[:-1], *rest))


@operator("Slice", attributes=("axes", "ends", "starts"))
def slice_1(node: NodeView, x: Tensor) -> Tensor:
    """Before opset 10: starts, ends and axes are attributes."""
    starts, ends = node.attributes["starts"], node.attributes["ends"]
    return _sliced(x, starts, ends, node.get("axes"), None)


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_10(
    _: NodeView,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """``x`` from starts to ends by steps along axes; negative steps go backwards."""
    return _sliced(
        x,
        integers(starts),
        integers(ends),
        None if axes is None else integers(axes),
        None if steps is None else integers(steps),
    )


def _sliced(
    x: Tensor,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None,
    steps: list[int] | None,
) -> Tensor:
    axes = list(range(len(starts))) if axes is None else counted_all(axes, x.ndim)
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError("starts, ends, axes and steps differ in length")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise ModelError("a step is zero")
        length = x.shape[axis]
        # Negative numbers count from the end once; what then lies outside is cut off.
        first, last = (n + length if n < 0 else n for n in (start, end))
        if step > 0:
            first, last = min(max(first, 0), length), min(max(last, 0), length)
        else:
            first, last = min(max(first, 0), length - 1), min(max(last, -1), length - 1)
        places = range(first, last, step)
        selection: list[Any] = [slice(None)] * x.ndim
        low, high = (0, 0) if not places else (min(places), max(places) + 1)
        selection[axis] = slice(low, high, abs(step))
        x = x[tuple(selection)]
        if step < 0:
            x = x.flip(axis)
    return x


@operator("OneHot", since=9, attributes=("axis",), host=(1,))
def one_hot(node: NodeView, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """values[1] where the new axis' place is the index, values[0] elsewhere."""
    length = integer(depth)
    axis = counted(node.attributes["axis"], index.ndim + 1)
    places = from_zero(index, length).unsqueeze(axis)
    shape = [length if other == axis else 1 for other in range(places.ndim)]
    hot = places == torch.arange(length, device=index.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@operator("NonZero", since=9, limits="not batchable: samples are run one group at a time")
def non_zero(_: NodeView, x: Tensor) -> Tensor:
    """Index tuples of the nonzero elements, (rank, count)."""
    return torch.nonzero(x).T


@operator("Compress", since=9, attributes=("axis",), host=(1,))
def compress(node: NodeView, x: Tensor, condition: Tensor) -> Tensor:
    """The slices along ``axis`` (of the flat tensor without it) where the condition holds."""
    axis = node.get("axis")
    x, axis = (x.reshape(-1), 0) if axis is None else (x, counted(axis, x.ndim))
    places = torch.nonzero(condition).reshape(-1).to(x.device)
    return x.index_select(axis, places)


@operator("Trilu", since=14, attributes=("upper",), host=(1,))
def trilu(node: NodeView, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Upper or lower triangle of the last two axes, zero elsewhere."""
    offset = 0 if diagonal is None else integer(diagonal)
    return torch.triu(x, offset) if node.attributes["upper"] else torch.tril(x, offset)


@operator("ReverseSequence", since=10, attributes=("batch_axis", "time_axis"))
def reverse_sequence(node: NodeView, x: Tensor, lengths: Tensor) -> Tensor:
    """The first ``lengths[b]`` time steps of each sequence backwards, the rest as they are."""
    batch, time = node.attributes["batch_axis"], node.attributes["time_axis"]
    steps = torch.arange(x.shape[time], device=x.device)
    ends = lengths.to(x.device).reshape(-1, 1)
    places = torch.where(steps < ends, ends - 1 - steps, steps)  # (batch, time)
    places = places if batch < time else places.T
    shape = [1] * x.ndim
    shape[batch], shape[time] = x.shape[batch], x.shape[time]
    return torch.gather(x, time, places.reshape(shape).expand(x.shape))
