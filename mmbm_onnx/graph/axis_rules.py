"""What each kind of operator does to the axes of its inputs (see ``axes``).

A rule takes a node, the layout of its first input, the lengths of the output's axes and the scope,
and returns the output's layout, or None when it cannot tell.
"""

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
    relabelled,
    resize,
    resized,
    sizes,
    without_channels,
)
from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import attribute

Lengths = tuple[Size, ...]
Rule = Callable[[onnx.NodeProto, Layout, Lengths, Scope], Layout | None]


def _same(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    """One value in, one value out, at the same place."""
    return first


def _resized(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    """The same axes, some of other lengths."""
    before = scope.sizes(node.input[0])
    if before is None or not len(before) == len(first) == len(lengths):
        return None
    return resize(first, before, lengths)


def _convolution(weight: int) -> Rule:
    """Filters on axis 1; whatever the other axes held before, they hold positions now."""

    def rule(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
        if len(first) < 3 or len(first) != len(lengths):
            return None
        if has(first[1], Label.BATCH) or not _fixed(node, weight, scope):
            return None
        batch = relabelled(first[0], Label.CHANNEL, Label.OTHER)
        return (batch, (Part(lengths[1], Label.CHANNEL),), *plain(lengths[2:], Label.OTHER))

    return rule


def _on_axis_one(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    """Pooling, normalisation: axis 1 is the channels by definition, if nothing says otherwise."""
    return _suppose(_resized(node, first, lengths, scope), 1, lengths)


def _on_last_axis(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    """Normalisation over the last axis: the channels, if nothing says otherwise."""
    last = len(lengths) - 1
    return _suppose(first, last, lengths) if attribute(node, "axis", -1) in (-1, last) else first


def _global_pool(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    return _suppose((*first[:2], *(() for _ in first[2:])), 1, lengths)


def _suppose(layout: Layout | None, place: int, lengths: Lengths) -> Layout | None:
    if layout is None or len(layout) < 3 or len(layout) != len(lengths):
        return layout
    if any(has(axis, Label.CHANNEL) for axis in layout):
        return layout
    if labels(layout[place]) & {Label.BATCH, Label.OTHER}:
        return layout
    return (*layout[:place], (Part(lengths[place], Label.CHANNEL),), *layout[place + 1 :])


def _matmul(second: int) -> Rule:
    """Output features of a constant factor; a product of two activations has no new ones."""

    def rule(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
        left, right = _layout(node, 0, scope), _layout(node, second, scope)
        if left is None or right is None or min(len(left), len(right), len(lengths)) < 2:
            return None
        if has(left[-1], Label.BATCH) or has(right[-2], Label.BATCH):
            return None
        joined = _broadcast([left[:-2], right[:-2]], lengths[:-2])
        if joined is None:
            return None
        rows, columns = left[-2], right[-1]
        if _fixed(node, second, scope):
            return (*without_channels((*joined, rows)), (Part(lengths[-1], Label.CHANNEL),))
        if _fixed(node, 0, scope):
            features = (Part(lengths[-2], Label.CHANNEL),)
            return (*without_channels(joined), features, *without_channels((columns,)))
        summed = has(left[-1], Label.CHANNEL) or has(right[-2], Label.CHANNEL)
        layout = (*joined, rows, columns)
        return without_channels(layout) if summed else layout

    return rule


def _gemm(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    left, right = _layout(node, 0, scope), _layout(node, 1, scope)
    if left is None or right is None or not len(left) == len(right) == len(lengths) == 2:
        return None
    rows, inner = left[::-1] if attribute(node, "transA", 0) else left
    other, columns = right[::-1] if attribute(node, "transB", 0) else right
    if has(inner, Label.BATCH) or has(other, Label.BATCH):
        return None
    if _fixed(node, 1, scope):
        return (*without_channels((rows,)), (Part(lengths[1], Label.CHANNEL),))
    if _fixed(node, 0, scope):
        return ((Part(lengths[0], Label.CHANNEL),), *without_channels((columns,)))
    return None


def _elementwise(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    """Several values in, broadcast against each other; constants say nothing about axes."""
    found = [scope.layouts.get(name) for name in node.input if name and not scope.is_fixed(name)]
    known = [layout for layout in found if layout is not None]
    return _broadcast(known, lengths) if len(known) == len(found) else None


def _expand(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    return _broadcast([first], lengths)


def _broadcast(layouts: Sequence[Layout], lengths: Lengths) -> Layout | None:
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


def _transpose(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    order = list(attribute(node, "perm", range(len(first) - 1, -1, -1)))
    if sorted(order) != list(range(len(first))):
        return None
    return tuple(first[place] for place in order)


def _reshape(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    target = scope.integers(node, "shape", 1) or []
    copied = 0
    if not attribute(node, "allowzero", 0):
        while copied < min(len(target), len(first), len(lengths)) and target[copied] == 0:
            copied += 1
    return refit(first, lengths, copied)


def _flatten(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    cut = attribute(node, "axis", 1)
    return (
        tuple(part for axis in first[:cut] for part in axis),
        tuple(part for axis in first[cut:] for part in axis),
    )


def _squeeze(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if axes is None:
        return refit(first, lengths)
    gone = {axis % len(first) for axis in axes}
    return tuple(axis for place, axis in enumerate(first) if place not in gone)


def _unsqueeze(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if axes is None:
        return refit(first, lengths)
    fresh = {axis % len(lengths) for axis in axes}
    if len(fresh) + len(first) != len(lengths):
        return None
    old = iter(first)
    return tuple(() if place in fresh else next(old) for place in range(len(lengths)))


def _reduce(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    axes = scope.integers(node, "axes", 1)
    if not axes:
        return None
    gone = {axis % len(first) for axis in axes}
    if attribute(node, "keepdims", 1):
        return tuple(() if place in gone else axis for place, axis in enumerate(first))
    return tuple(axis for place, axis in enumerate(first) if place not in gone)


def _concat(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    names = [name for name in node.input if not scope.is_fixed(name)]
    layouts = [layout for name in names if (layout := scope.layouts.get(name)) is not None]
    if len(layouts) != len(names) or any(len(layout) != len(lengths) for layout in layouts):
        return None
    place = attribute(node, "axis", 0) % len(lengths)
    others = _broadcast(
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


def _gather(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
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


def _depth_space(
    node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope
) -> Layout | None:
    if not len(first) == len(lengths) == 4:
        return None
    depth = resized(first[1], None, lengths[1])
    return (*without_channels(first[:1]), depth, *plain(lengths[2:], Label.OTHER))


def _fixed(node: onnx.NodeProto, place: int, scope: Scope) -> bool:
    return place < len(node.input) and scope.is_fixed(node.input[place])


def _layout(node: onnx.NodeProto, place: int, scope: Scope) -> Layout | None:
    """Layout of an input; a constant's axes are all positions."""
    name = node.input[place]
    if not scope.is_fixed(name):
        return scope.layouts.get(name)
    known = scope.values.get(name)
    lengths = tuple(known.dims) if known is not None else sizes(scope.types.get(name))
    return None if lengths is None else plain(lengths, Label.OTHER)


_NAMES: dict[Rule, str] = {
    _same: "Abs Cast Celu Clip CumSum DequantizeLinear Dropout Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Hardmax Identity LeakyRelu Log LogSoftmax LpNormalization "
    "MeanVarianceNormalization Mish Neg QuantizeLinear Reciprocal Relu Selu Shrink Sigmoid "
    "Softmax Softplus Softsign Sqrt Swish Tanh ThresholdedRelu",
    _resized: "Pad Resize Slice Split Tile Upsample",
    _convolution(1): "Conv ConvInteger ConvTranspose",
    _convolution(3): "QLinearConv",
    _on_axis_one: "AveragePool BatchNormalization GroupNormalization InstanceNormalization LRN "
    "LpPool MaxPool",
    _on_last_axis: "LayerNormalization RMSNormalization",
    _matmul(1): "MatMul MatMulInteger",
    _matmul(3): "QLinearMatMul",
    _gemm: "Gemm",
    _elementwise: "Add Div Max Mean Min Mul PRelu Pow Sub Sum Where",
    _expand: "Expand",
    _transpose: "Transpose",
    _reshape: "Reshape",
    _flatten: "Flatten",
    _squeeze: "Squeeze",
    _unsqueeze: "Unsqueeze",
    _reduce: "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare",
    _global_pool: "GlobalAveragePool GlobalLpPool GlobalMaxPool",
    _concat: "Concat",
    _gather: "Gather",
    _depth_space: "DepthToSpace SpaceToDepth",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
# Rules that look their inputs up themselves, since the first may be a constant.
WITHOUT_FIRST = frozenset(RULES[name] for name in ("Add", "Concat", "Gemm", "MatMul"))
