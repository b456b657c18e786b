"""Shapes: reading them, changing them, joining and cutting tensors."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.operators.arguments import counted, counted_all, integers
from mmbm_onnx.execution.registry import NodeView, operator


@operator("Shape", attributes=("start", "end"))
def shape(node: NodeView, x: Tensor) -> Tensor:
    """The lengths of axes ``start`` up to ``end``, int64, on the CPU."""
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end")], dtype=torch.int64)


@operator("Size")
def size(_: NodeView, x: Tensor) -> Tensor:
    """The number of elements, int64, on the CPU."""
    return torch.tensor(prod(x.shape), dtype=torch.int64)


@operator("Reshape", since=5, attributes=("allowzero",), host=(1,))
def reshape(node: NodeView, x: Tensor, target: Tensor) -> Tensor:
    """-1 is what is left; 0 copies the axis' length, or is meant with allowzero."""
    lengths = integers(target)
    if node.get("allowzero", 0):
        if 0 in lengths and -1 in lengths:
            raise ModelError(f"shape {lengths} has both 0 and -1 with allowzero")
        return x.reshape(lengths)
    if any(length == 0 and axis >= x.ndim for axis, length in enumerate(lengths)):
        raise ModelError(f"shape {lengths} copies an axis that shape {list(x.shape)} lacks")
    return x.reshape([x.shape[a] if length == 0 else length for a, length in enumerate(lengths)])


@operator("Flatten", attributes=("axis",))
def flatten(node: NodeView, x: Tensor) -> Tensor:
    """A matrix: the axes before ``axis`` by the rest."""
    axis = node.attributes["axis"]
    axis = axis if axis == x.ndim else counted(axis, x.ndim)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", attributes=("axes",))
def squeeze_1(node: NodeView, x: Tensor) -> Tensor:
    """Before opset 13: axes are an attribute."""
    return _squeezed(x, node.get("axes"))


@operator("Squeeze", since=13, host=(1,))
def squeeze_13(_: NodeView, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """``x`` without the given axes of length one, or without all of them."""
    return _squeezed(x, None if axes is None else integers(axes))


def _squeezed(x: Tensor, axes: list[int] | None) -> Tensor:
    if axes is None:
        axes = [axis for axis, length in enumerate(x.shape) if length == 1]
    chosen = counted_all(axes, x.ndim)
    for axis in chosen:
        if x.shape[axis] != 1:
            raise ModelError(f"axis {axis} of shape {list(x.shape)} has not length 1")
    return x.reshape([length for axis, length in enumerate(x.shape) if axis not in chosen])


@operator("Unsqueeze", attributes=("axes",))
def unsqueeze_1(node: NodeView, x: Tensor) -> Tensor:
    """Before opset 13: axes are an attribute."""
    return _unsqueezed(x, node.attributes["axes"])


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze_13(_: NodeView, x: Tensor, axes: Tensor) -> Tensor:
    """``x`` with axes of length one at the given places of the result."""
    return _unsqueezed(x, integers(axes))


def _unsqueezed(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(counted_all(axes, x.ndim + len(axes))):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose", attributes=("perm",))
def transpose(node: NodeView, x: Tensor) -> Tensor:
    """Axes in the order ``perm``, reversed by default."""
    return x.permute(node.get("perm") or tuple(reversed(range(x.ndim))))


@operator("Concat", since=4, attributes=("axis",))
def concat(node: NodeView, *parts: Tensor) -> Tensor:
    """The inputs joined along ``axis``."""
    axis = counted(node.attributes["axis"], parts[0].ndim)
    if any(part.ndim != parts[0].ndim for part in parts):
        raise ModelError(f"inputs have {sorted({part.ndim for part in parts})} axes")
    return torch.cat(parts, axis)


@operator("Split", since=2, attributes=("axis", "split"))
def split_2(node: NodeView, x: Tensor) -> tuple[Tensor, ...]:
    """Before opset 13: lengths are an attribute."""
    return _cut(node, x, node.get("split"))


@operator("Split", since=13, attributes=("axis", "num_outputs"), host=(1,))
def split_13(node: NodeView, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    """``x`` cut along ``axis`` into parts of the given or of equal length."""
    return _cut(node, x, None if lengths is None else integers(lengths))


def _cut(node: NodeView, x: Tensor, lengths: list[int] | None) -> tuple[Tensor, ...]:
    axis = counted(node.attributes["axis"], x.ndim)
    if lengths is None:
        parts = node.get("num_outputs") or len(node.outputs)
        each = -(-x.shape[axis] // parts)
        lengths = [each] * (parts - 1) + [x.shape[axis] - each * (parts - 1)]
        if lengths[-1] != each and (node.opset < 18 or lengths[-1] < 0):
            raise ModelError(f"axis of length {x.shape[axis]} cannot be cut into {parts} parts")
    if len(lengths) != len(node.outputs):
        raise ModelError(f"{len(lengths)} parts for {len(node.outputs)} outputs")
    return torch.split(x, lengths, axis)


@operator("Expand", since=8, host=(1,))
def expand(_: NodeView, x: Tensor, target: Tensor) -> Tensor:
    """``x`` broadcast with a tensor of the given shape."""
    joint = torch.broadcast_shapes(x.shape, integers(target))  # type: ignore[no-untyped-call]
    return x.expand(joint)


@operator("Tile", since=6, host=(1,))
def tile(_: NodeView, x: Tensor, repeats: Tensor) -> Tensor:
    """``x`` repeated along each axis."""
    counts = integers(repeats)
    if len(counts) != x.ndim:
        raise ModelError(f"{len(counts)} repeats for {x.ndim} axes")
    return x.repeat(counts)
