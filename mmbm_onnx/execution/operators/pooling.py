"""Max, average and Lp pooling over sliding windows, and over all of a channel."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.operators.windows import Windows, find_windows
from mmbm_onnx.execution.registry import NodeView, operator

_WINDOW_ATTRIBUTES = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _pool_windows(node: NodeView, x: Tensor) -> Windows:
    """Windows of a pooling node over ``x`` (n, c, *spatial)."""
    if x.ndim - 2 not in _MAX:
        raise UnsupportedOperatorError(f"input has {x.ndim} axes; 3, 4 and 5 are executed")
    kernel = node.get("kernel_shape") or []
    if len(kernel) != x.ndim - 2:
        raise ModelError(f"kernel_shape has {len(kernel)} entries for {x.ndim - 2} spatial axes")
    windows = find_windows(node, x.shape[2:], kernel)
    if min(windows.begin + windows.end) < 0:
        raise UnsupportedOperatorError("negative pads are not specified for pooling")
    return windows


@operator("MaxPool", attributes=(*_WINDOW_ATTRIBUTES, "storage_order"), limits="3 to 5 axes")
def max_pool(node: NodeView, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Largest element of each window; padding never wins. Indices count over the whole input."""
    windows = _pool_windows(node, x)
    axes = len(windows.size)
    # torch pools floating-point tensors only; 8-bit integers are exact in float32.
    data = x if x.is_floating_point() else x.to(torch.float32)
    padding = windows.begin
    small = all(2 * b <= k for b, k in zip(windows.begin, windows.kernel, strict=True))
    if not (windows.symmetric and small):
        data = F.pad(data, windows.padding(), value=-math.inf)
        padding = (0,) * axes
    indexed = node.wants(1)
    result = _MAX[axes](
        data,
        windows.kernel,
        windows.stride,
        padding,
        windows.dilation,
        ceil_mode=False,
        return_indices=indexed,
    )
    if not indexed:
        return result.to(x.dtype)
    values, inside = result
    begin = (0,) * axes if padding == windows.begin else windows.begin
    indices = _whole_index(inside, data.shape[2:], begin, x.shape, node.get("storage_order", 0))
    return values.to(x.dtype), indices


def _whole_index(
    inside: Tensor, padded: torch.Size, begin: tuple[int, ...], shape: torch.Size, order: int
) -> Tensor:
    """Index into the flat input from the index into one padded channel, as torch gives it."""
    axes = len(begin)
    places: list[Tensor] = []
    rest = inside
    for axis in reversed(range(axes)):
        places.insert(0, rest % padded[axis] - begin[axis])
        rest = torch.div(rest, padded[axis], rounding_mode="floor")
    index = torch.zeros_like(inside)
    for axis in range(axes) if order == 0 else reversed(range(axes)):
        index = index * shape[axis + 2] + places[axis]
    channels = torch.arange(shape[0] * shape[1], device=inside.device)
    return index + channels.reshape(shape[0], shape[1], *[1] * axes) * math.prod(shape[2:])


def _window_sum(x: Tensor, windows: Windows) -> Tensor:
    """Sum over each window, padding counted as 0."""
    axes = len(windows.size)
    if any(windows.padding()):
        x = F.pad(x, windows.padding())
    if max(windows.dilation) == 1:
        sums = _AVERAGE[axes](x, windows.kernel, windows.stride)
        return sums * math.prod(windows.kernel)
    # avg_pool knows no dilation: convolve every channel with ones instead.
    ones = torch.ones((1, 1, *windows.kernel), dtype=x.dtype, device=x.device)
    flat = x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    sums = _CONVOLVE[axes](flat, ones, None, windows.stride, 0, windows.dilation)
    return sums.reshape(x.shape[0], x.shape[1], *sums.shape[2:])


def _taps(windows: Windows, axis: int, padding: bool) -> list[int]:
    """Taps of each window along an axis that lie on the input, or also on declared padding."""
    begin, size = windows.begin[axis], windows.size[axis]
    first, last = (0, begin + size + windows.end[axis]) if padding else (begin, begin + size)
    return [
        sum(
            first <= window * windows.stride[axis] + tap * windows.dilation[axis] < last
            for tap in range(windows.kernel[axis])
        )
        for window in range(windows.count[axis])
    ]


@operator(
    "AveragePool",
    attributes=(*_WINDOW_ATTRIBUTES, "count_include_pad"),
    limits="3 to 5 axes",
)
def average_pool(node: NodeView, x: Tensor) -> Tensor:
    """Mean of each window; ``count_include_pad`` counts declared padding, never what is beyond."""
    windows = _pool_windows(node, x)
    axes = len(windows.size)
    result = _window_sum(x, windows)
    for axis in range(axes):
        taps = _taps(windows, axis, bool(node.get("count_include_pad", 0)))
        if 0 in taps:
            raise UnsupportedOperatorError(f"a window lies wholly on padding of axis {axis + 2}")
        count = torch.tensor(taps, dtype=x.dtype, device=x.device)
        result = result / count.reshape(-1, *[1] * (axes - axis - 1))
    return result


def _root(powers: Tensor, p: int) -> Tensor:
    """``powers`` ** (1 / p), whose gradient at 0 is 0 rather than not a number."""
    if p == 1:
        return powers
    positive = powers > 0
    return torch.where(positive, torch.where(positive, powers, 1) ** (1.0 / p), 0)


@operator("LpPool", since=2, attributes=(*_WINDOW_ATTRIBUTES, "p"), limits="3 to 5 axes")
def lp_pool(node: NodeView, x: Tensor) -> Tensor:
    """p-norm of each window, padding counted as 0."""
    p = int(node.get("p", 2))
    return _root(_window_sum(x.abs() ** p, _pool_windows(node, x)), p)


def _spatial(x: Tensor) -> list[int]:
    if x.ndim < 3:
        raise UnsupportedOperatorError(f"input has {x.ndim} axes, none of them spatial")
    return list(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(node: NodeView, x: Tensor) -> Tensor:
    """Mean over all spatial axes, kept with length 1."""
    return x.mean(dim=_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: NodeView, x: Tensor) -> Tensor:
    """Largest element over all spatial axes, kept with length 1."""
    return x.amax(dim=_spatial(x), keepdim=True)


@operator("GlobalLpPool", since=2, attributes=("p",))
def global_lp_pool(node: NodeView, x: Tensor) -> Tensor:
    """p-norm over all spatial axes, kept with length 1."""
    p = int(node.get("p", 2))
    return _root((x.abs() ** p).sum(dim=_spatial(x), keepdim=True), p)
