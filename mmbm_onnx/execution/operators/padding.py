"""Pad: constant, reflect, edge and wrap, on any axes, cropping where a width is negative."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator

_MODES = ("constant", "reflect", "edge", "wrap")


def _pad(x: Tensor, before: list[int], after: list[int], mode: str, value: Any) -> Tensor:
    if mode not in _MODES:
        raise UnsupportedOperatorError(f"mode {mode!r} is not in the ONNX specification")
    if mode == "constant":
        widths: list[int] = []
        for axis in reversed(range(x.ndim)):
            widths += [before[axis], after[axis]]
        return F.pad(x, widths, value=value) if any(widths) else x
    for axis in range(x.ndim):
        if before[axis] == 0 and after[axis] == 0:
            continue
        # Which element of the axis every place of the result shows; crops come first.
        kept = np.arange(x.shape[axis])[max(0, -before[axis]) :]
        kept = kept[: len(kept) - max(0, -after[axis])]
        widths = [max(0, before[axis]), max(0, after[axis])]
        if len(kept) == 0 or (mode == "reflect" and max(widths) >= len(kept)):
            raise ModelError(f"axis {axis} of length {x.shape[axis]} is too short for its pads")
        index = np.pad(kept, widths, mode=mode)  # type: ignore[call-overload]
        x = x.index_select(axis, torch.from_numpy(index).to(x.device))
    return x


def _sides(pads: list[int], axes: list[int], rank: int) -> tuple[list[int], list[int]]:
    """Widths before and after each of ``rank`` axes from ``pads`` of ``axes`` alone."""
    if len(pads) != 2 * len(axes):
        raise ModelError(f"pads has {len(pads)} entries for {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        if not -rank <= axis < rank:
            raise ModelError(f"axis {axis} is outside an input of {rank} axes")
        before[axis] = pads[place]
        after[axis] = pads[len(axes) + place]
    return before, after


@operator("Pad", since=2, attributes=("mode", "pads", "value"))
def pad_2(node: NodeView, x: Tensor) -> Tensor:
    """Opset 2 to 10: widths and value are attributes."""
    pads = [int(width) for width in node.attributes["pads"]]
    before, after = _sides(pads, list(range(x.ndim)), x.ndim)
    return _pad(x, before, after, node.get("mode", "constant"), float(node.get("value", 0.0)))


@operator("Pad", since=11, attributes=("mode",), host=(1, 2, 3))
def pad_11(
    node: NodeView,
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Opset 11 on: widths, value and, from 18, the axes they belong to are inputs."""
    chosen = list(range(x.ndim)) if axes is None else axes.reshape(-1).tolist()
    before, after = _sides(pads.reshape(-1).tolist(), chosen, x.ndim)
    fill = 0 if value is None or value.numel() == 0 else value.reshape(-1).tolist()[0]
    return _pad(x, before, after, node.get("mode", "constant"), fill)
