"""What operators that only move, join or drop values do to the axes (see ``axis_rules``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from mmbm_onnx.graph.axes import (
    Axis,
    Label,
    Layout,
    Part,
    Size,
    has,
    labels,
    plain,
    refit,
    resized,
    without_channels,
)
from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import attribute

Lengths = tuple[Size, ...]
Rule = Callable[[onnx.NodeProto, Layout, Lengths, Scope], Layout | None]


def broadcast(layouts: Sequence[Layout], lengths: Lengths) -> Layout | None:
    """Layout of values broadcast against each other, aligned at their last axes."""
    rank = len(lengths)
    if any(len(layout) > rank for layout in layouts):
        return None
    new: list[Axis] = []
    for place, length in enumerate(lengths):
        shifted = [(layout, place - rank + len(layout)) for layout in layouts]
        found = [layout[own] for layout, own in shifted if own >= 0]
        long = [axis for axis in found if any(part.size != 1 for part in axis)]
        if not long and length == 1:
            long = found
        batch = any(has(axis, Label.BATCH) for axis in found)
        stretched = (Part(length, Label.BATCH if batch else Label.UNKNOWN),)
        new.append(max(long, key=_weight) if long else stretched)
    return tuple(new)


def _weight(axis: Axis) -> int:
    """How much an axis tells; mixtures come first, so that no doubt is lost."""
    if has(axis, Label.CHANNEL):
        return 4 if len(labels(axis)) > 1 else 2
    if has(axis, Label.BATCH):
        return 3
    return 1 if labels(axis) == {Label.OTHER} else 0


def transpose(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    order = list(attribute(node, "perm", range(len(first) - 1, -1, -1)))
    if sorted(order) != list(range(len(first))):
        return None
    return tuple(first[place] for place in order)


def reshape(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    target = scope.integers(node, "shape", 1) or []
    copied = 0
    if not attribute(node, "allowzero", 0):
        while copied < min(len(target), len(first), len(lengths)) and target[copied] == 0:
            copied += 1
    return refit(first, lengths, copied)


def flatten(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    cut = attribute(node, "axis", 1)
    return (
        tuple(part for axis in first[:cut] for part in axis),
        tuple(part for axis in first[cut:] for part in axis),
    )


def squeeze(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if axes is None:
        return refit(first, lengths)
    gone = {axis % len(first) for axis in axes}
    return tuple(axis for place, axis in enumerate(first) if place not in gone)


def unsqueeze(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if axes is None:
        return refit(first, lengths)
    fresh = {axis % len(lengths) for axis in axes}
    if len(fresh) + len(first) != len(lengths):
        return None
    old = iter(first)
    return tuple(() if place in fresh else next(old) for place in range(len(lengths)))


def reduce(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if not axes:
        return None
    gone = {axis % len(first) for axis in axes}
    if attribute(node, "keepdims", 1):
        return tuple(() if place in gone else axis for place, axis in enumerate(first))
    return tuple(axis for place, axis in enumerate(first) if place not in gone)


def concat(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    names = [name for name in node.input if not scope.is_fixed(name)]
    layouts = [layout for name in names if (layout := scope.layouts.get(name)) is not None]
    if len(layouts) != len(names) or any(len(layout) != len(lengths) for layout in layouts):
        return None
    place = attribute(node, "axis", 0) % len(lengths)
    others = broadcast(
        [(*layout[:place], *layout[place + 1 :]) for layout in layouts],
        (*lengths[:place], *lengths[place + 1 :]),
    )
    if others is None:
        return None
    label = _joined([layout[place] for layout in layouts])
    layout = (*others[:place], (Part(lengths[place], label),), *others[place:])
    lost = label is not Label.CHANNEL and any(has(one[place], Label.CHANNEL) for one in layouts)
    return without_channels(layout) if lost else layout


def _joined(axes: Sequence[Axis]) -> Label:
    """Label of axes laid end to end: channels joined with something unknown stay channels."""
    found = [labels(axis) for axis in axes]
    union = set().union(*found)
    if Label.BATCH in union:
        return Label.BATCH
    if any(len(one) > 1 for one in found):
        return Label.UNKNOWN
    if union == {Label.CHANNEL} or union == {Label.CHANNEL, Label.UNKNOWN}:
        return Label.CHANNEL
    return Label.OTHER if union == {Label.OTHER} else Label.UNKNOWN


def gather(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    chosen = scope.sizes(node.input[1])
    if chosen is None or len(first) - 1 + len(chosen) != len(lengths):
        return None
    place = attribute(node, "axis", 0) % len(first)
    taken: Layout = plain(lengths[place : place + len(chosen)])
    if len(chosen) == 1:
        taken = (resized(first[place], None, lengths[place]),)
    layout = (*first[:place], *taken, *first[place + 1 :])
    kept = not chosen or has(taken[0], Label.CHANNEL)
    lost = has(first[place], Label.CHANNEL) and not kept
    return without_channels(layout) if lost else layout


def depth_space(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    if not len(first) == len(lengths) == 4:
        return None
    depth = resized(first[1], None, lengths[1])
    return (*without_channels(first[:1]), depth, *plain(lengths[2:], Label.OTHER))
