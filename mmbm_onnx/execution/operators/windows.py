"""Sliding windows of convolution and pooling: kernel, stride, dilation and padding per axis.

Source: ONNX operator specification, Conv, MaxPool and AveragePool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of a node lie; every field has one entry per spatial axis.

    Attributes:
        size: Length of the input, in elements.
        kernel: Taps of one window.
        stride: Step from one window to the next.
        dilation: Step from one tap to the next.
        begin: Padding before the first element.
        end: Padding after the last element, as declared.
        count: Number of windows.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    count: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Padding after the last element that the windows touch; 0 where they touch none."""
        last = (
            (n - 1) * s + (k - 1) * d + 1 - b - size
            for n, s, k, d, b, size in zip(
                self.count,
                self.stride,
                self.kernel,
                self.dilation,
                self.begin,
                self.size,
                strict=True,
            )
        )
        return tuple(max(0, end) for end in last)

    @property
    def symmetric(self) -> bool:
        """Whether the same padding, declared before and after, gives just these windows."""
        for size, k, s, d, b, n in zip(
            self.size,
            self.kernel,
            self.stride,
            self.dilation,
            self.begin,
            self.count,
            strict=True,
        ):
            if (size + 2 * b - (k - 1) * d - 1) // s + 1 != n:
                return False
        return True

    def padding(self) -> list[int]:
        """``torch.nn.functional.pad`` widths that make every window fit: last axis first."""
        widths: list[int] = []
        for begin, end in reversed(list(zip(self.begin, self.reach, strict=True))):
            widths += [begin, end]
        return widths


def per_axis(node: NodeView, attribute: str, axes: int, default: int) -> tuple[int, ...]:
    """An integer attribute with one entry per spatial axis.

    Raises:
        ModelError: It has another length.
    """
    values = node.get(attribute) or [default] * axes
    if len(values) != axes:
        raise ModelError(f"{attribute} has {len(values)} entries for {axes} spatial axes")
    return tuple(int(value) for value in values)


def declared_pads(node: NodeView, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ``pads`` attribute as padding before and after each spatial axis.

    Raises:
        ModelError: It has not two entries per axis.
    """
    pads = node.get("pads") or [0] * (2 * axes)
    if len(pads) != 2 * axes:
        raise ModelError(f"pads has {len(pads)} entries for {axes} spatial axes")
    return tuple(pads[:axes]), tuple(pads[axes:])


def find_windows(node: NodeView, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or pooling node over an input of spatial shape ``size``.

    ``ceil_mode`` counts windows that run over the end but not those that would start beyond
    the input and its leading padding.

    Raises:
        ModelError: Attributes do not fit the input's rank, or no window fits.
        UnsupportedOperatorError: ``auto_pad`` is not one of the specified words.
    """
    axes = len(size)
    stride = per_axis(node, "strides", axes, 1)
    dilation = per_axis(node, "dilations", axes, 1)
    begin, end = declared_pads(node, axes)
    auto = node.get("auto_pad", "NOTSET")
    count: list[int] = []
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        count = [-(-length // s) for length, s in zip(size, stride, strict=True)]
        total = [
            max(0, (n - 1) * s + (k - 1) * d + 1 - length)
            for n, s, k, d, length in zip(count, stride, kernel, dilation, size, strict=True)
        ]
        small, large = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        begin, end = (
            (tuple(small), tuple(large)) if auto == "SAME_UPPER" else (tuple(large), tuple(small))
        )
    elif auto in ("VALID", "NOTSET"):
        if auto == "VALID":
            begin = end = (0,) * axes
        for length, k, s, d, b, e in zip(size, kernel, stride, dilation, begin, end, strict=True):
            room = length + b + e - (k - 1) * d - 1
            windows = room // s + 1
            if node.get("ceil_mode", 0):
                windows = -(-room // s) + 1
                if (windows - 1) * s >= length + b:
                    windows -= 1
            count.append(windows)
    else:
        raise UnsupportedOperatorError(f"auto_pad {auto!r} is not in the ONNX specification")
    if min(count) < 1:
        raise ModelError(f"no window of {list(kernel)} fits an input of spatial shape {list(size)}")
    return Windows(
        tuple(size), tuple(kernel), stride, dilation, tuple(begin), tuple(end), tuple(count)
    )
