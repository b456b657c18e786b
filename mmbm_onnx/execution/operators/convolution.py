"""Conv and ConvTranspose on one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.operators.windows import declared_pads, find_windows, per_axis
from mmbm_onnx.execution.registry import NodeView, operator

_WINDOW_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def _spatial_axes(node: NodeView, x: Tensor, weight: Tensor) -> int:
    """Number of spatial axes, after checking input, weight and ``kernel_shape`` against it."""
    axes = x.ndim - 2
    if axes not in _CONVOLVE:
        raise UnsupportedOperatorError(f"input has {x.ndim} axes; 3, 4 and 5 are executed")
    if weight.ndim != x.ndim:
        raise ModelError(f"weight has {weight.ndim} axes, the input {x.ndim}")
    kernel = node.get("kernel_shape")
    if kernel and list(kernel) != list(weight.shape[2:]):
        raise ModelError(f"kernel_shape {list(kernel)} is not the weight's {list(weight.shape)}")
    return axes


@operator("Conv", attributes=_WINDOW_ATTRIBUTES, limits="1 to 3 spatial axes")
def conv(node: NodeView, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of ``x`` (n, c, *spatial) with ``weight`` (m, c / group, *kernel)."""
    axes = _spatial_axes(node, x, weight)
    windows = find_windows(node, x.shape[2:], weight.shape[2:])
    padding: tuple[int, ...] = windows.begin
    if not windows.symmetric or min(windows.begin) < 0:
        x = F.pad(x, windows.padding())
        padding = (0,) * axes
    return _CONVOLVE[axes](
        x, weight, bias, windows.stride, padding, windows.dilation, int(node.get("group", 1))
    )


def _transpose_widths(node: NodeView, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """``F.pad`` widths (negative: crop) that turn the result without padding into the one asked.

    Raises:
        ModelError: Attributes do not fit the input's rank.
        UnsupportedOperatorError: The result asked for is larger than the windows cover, in a way
            on which runtimes disagree.
    """
    axes = len(size)
    stride = per_axis(node, "strides", axes, 1)
    dilation = per_axis(node, "dilations", axes, 1)
    extra = per_axis(node, "output_padding", axes, 0)
    begin, end = (list(pads) for pads in declared_pads(node, axes))
    auto = node.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedOperatorError(f"auto_pad {auto!r} is not in the ONNX specification")
    if auto != "NOTSET":
        begin, end = [0] * axes, [0] * axes
    asked: Sequence[int] | None = node.get("output_shape")
    if asked and len(asked) != axes:
        raise ModelError(f"output_shape has {len(asked)} entries for {axes} spatial axes")
    if not asked and auto.startswith("SAME"):
        asked = [length * step for length, step in zip(size, stride, strict=True)]
    widths: list[int] = []
    for axis in reversed(range(axes)):
        if asked:
            full = (size[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
            total = full + extra[axis] - asked[axis]
            if total < 0 and not (auto == "NOTSET" and -total < stride[axis]):
                raise UnsupportedOperatorError(
                    f"output has {-total} elements more than its windows cover on axis {axis + 2}"
                )
            # The odd element goes to the front, except for SAME_UPPER; what is missing is zeros
            # at the end.
            front = total // 2 if auto == "SAME_UPPER" else total - total // 2
            front = max(0, front)
            begin[axis], end[axis] = front, total - front
        widths += [-begin[axis], extra[axis] - end[axis]]
    return widths


@operator(
    "ConvTranspose",
    attributes=(*_WINDOW_ATTRIBUTES, "output_padding", "output_shape"),
    limits="1 to 3 spatial axes; no output larger than its windows cover",
)
def conv_transpose(node: NodeView, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution of ``x`` (n, c, *spatial) with ``weight`` (c, m / group, *kernel)."""
    axes = _spatial_axes(node, x, weight)
    result = _TRANSPOSE[axes](
        x,
        weight,
        None,
        per_axis(node, "strides", axes, 1),
        0,
        0,
        int(node.get("group", 1)),
        per_axis(node, "dilations", axes, 1),
    )
    widths = _transpose_widths(node, x.shape[2:], weight.shape[2:])
    if any(widths):
        result = F.pad(result, widths)
    if min(result.shape) < 1:
        raise ModelError(f"pads leave nothing of the output: shape {list(result.shape)}")
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)
