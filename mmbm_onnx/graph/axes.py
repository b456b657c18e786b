"""What the axes of a tensor are made of, kept through reshapes.

An axis is a row of parts, each with a size and a label. Convolution output ``(N, C, H, W)`` is
``[N batch] [C channel] [H other] [W other]``; reshaped to ``(N, C*H*W)`` its second axis has three
parts; split into groups, its channel axis becomes two axes with one channel part each. So a chain
of Reshape and Transpose can be followed exactly, and whoever asks for *the* channel axis learns
when there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import onnx

Size = int | str | None  # a length, the symbol of a length, or unknown


class Label(Enum):
    """What a part of an axis runs over."""

    BATCH = "batch"
    CHANNEL = "channel"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """A factor of an axis; the parts of an axis are in row-major order."""

    size: Size
    label: Label


Axis = tuple[Part, ...]
Layout = tuple[Axis, ...]


def sizes(kind: onnx.TypeProto | None) -> tuple[Size, ...] | None:
    """Lengths of a tensor's axes, symbols included; None when its rank is unknown."""
    if kind is None or not kind.HasField("tensor_type"):
        return None
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value > 0
        else (dim.dim_param or None)
        for dim in kind.tensor_type.shape.dim
    )


def plain(lengths: Sequence[Size], label: Label = Label.UNKNOWN) -> Layout:
    """A layout of axes that are not told apart."""
    return tuple((Part(size, label),) for size in lengths)


def labels(axis: Axis) -> set[Label]:
    """Labels found in an axis; parts of length 1 count only when there is nothing else."""
    return {part.label for part in axis if part.size != 1} or {part.label for part in axis}


def has(axis: Axis, label: Label) -> bool:
    """Whether any part of the axis, of length 1 or not, carries the label."""
    return any(part.label is label for part in axis)


def resized(axis: Axis, before: Size, size: Size) -> Axis:
    """The axis after it was cut, padded, repeated or joined along itself."""
    if before == size and size is not None:
        return axis
    found = labels(axis)
    return (Part(size, found.pop() if len(found) == 1 else Label.UNKNOWN),)


def relabelled(axis: Axis, before: Label, after: Label) -> Axis:
    """The axis with one label exchanged for another."""
    return tuple(replace(part, label=after) if part.label is before else part for part in axis)


def without_channels(layout: Iterable[Axis]) -> Layout:
    """The layout after its channels stopped being told apart."""
    return tuple(relabelled(axis, Label.CHANNEL, Label.OTHER) for axis in layout)


def resize(layout: Layout, before: Sequence[Size], after: Sequence[Size]) -> Layout:
    """The layout after some axes changed their lengths, without channels if some were mixed in."""
    new = tuple(resized(*each) for each in zip(layout, before, after, strict=True))
    lost = any(
        has(old, Label.CHANNEL) and not has(axis, Label.CHANNEL)
        for old, axis in zip(layout, new, strict=True)
    )
    return without_channels(new) if lost else new


def refit(layout: Layout, lengths: Sequence[Size], copied: int = 0) -> Layout:
    """The layout after a reshape to ``lengths``, the elements keeping their row-major order.

    Parts are matched from both ends. What remains between must belong to the one length that was
    not matched; if there are several, their parts are unknown and no channels are told apart.

    Args:
        layout: Axes before the reshape.
        lengths: Lengths after it.
        copied: How many leading axes are known to be taken over as they are.
    """
    parts = [part for axis in layout[copied:] for part in axis]
    done: list[Axis | None] = [*layout[:copied], *([None] * (len(lengths) - copied))]
    for order in (1, -1):
        places = range(copied, len(lengths)) if order == 1 else range(len(lengths) - 1, -1, -1)
        for place in places:
            if done[place] is not None or (taken := _take(parts, lengths[place], order)) is None:
                break
            done[place], parts = taken
    unmatched = [place for place, axis in enumerate(done) if axis is None]
    if len(unmatched) == 1:
        done[unmatched[0]] = tuple(parts)
    elif unmatched:
        for place in unmatched:
            done[place] = (Part(lengths[place], Label.UNKNOWN),)
    elif any(part.size != 1 for part in parts):
        return plain(lengths)  # the lengths contradict each other
    new = tuple(axis or () for axis in done)
    lost = len(unmatched) > 1 and any(part.label is Label.CHANNEL for part in parts)
    return settled(without_channels(new) if lost else new, lengths)


def settled(layout: Layout, lengths: Sequence[Size]) -> Layout:
    """The layout with the lengths that are known, or nothing told apart if they contradict it."""
    new: list[Axis] = []
    for axis, length in zip(layout, lengths, strict=True):
        factors = [part.size for part in axis if isinstance(part.size, int)]
        if isinstance(length, int) and len(factors) == len(axis) and math.prod(factors) != length:
            return plain(lengths)
        alone = len(axis) == 1 and length is not None and not factors
        new.append((Part(length, axis[0].label),) if alone else axis)
    return tuple(new)


def _take(parts: Sequence[Part], length: Size, order: int) -> tuple[Axis, list[Part]] | None:
    """Take parts worth ``length`` from the front (order 1) or the back (order -1)."""
    rest = list(parts)[::order]
    taken: list[Part] = []
    if isinstance(length, str):
        while rest and rest[0].size == 1:
            taken.append(rest.pop(0))
        if not rest or rest[0].size != length:
            return None
        taken.append(rest.pop(0))
    elif length is None:
        return None
    elif length == 1:
        if rest and rest[0].size == 1:
            taken.append(rest.pop(0))
    else:
        need = length
        while need > 1:
            if not rest or not isinstance(size := rest[0].size, int):
                return None
            part = rest.pop(0)
            if need % size == 0:
                taken.append(part)
                need //= size
            elif size % need == 0:
                taken.append(Part(need, part.label))
                rest.insert(0, Part(size // need, part.label))
                need = 1
            else:
                return None
    return tuple(taken[::order]), rest[::order]


def channel_of(layout: Layout | None) -> int | None:
    """The axis that holds all channels and nothing else, never axis 0, or None.

    Of a tensor of two axes whose first is the batch, the second is the channels (features), also
    when nothing else is known about it.
    """
    if layout is None:
        return None
    found = [place for place, axis in enumerate(layout) if has(axis, Label.CHANNEL)]
    if len(layout) == 2 and has(layout[0], Label.BATCH):
        return 1 if found in ([], [1]) and not has(layout[1], Label.BATCH) else None
    if len(found) != 1 or found[0] == 0 or labels(layout[found[0]]) != {Label.CHANNEL}:
        return None
    return None if has(layout[found[0]], Label.BATCH) else found[0]
