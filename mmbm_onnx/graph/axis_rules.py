"""What each kind of operator does to the axes of its inputs (see ``axes``).

A rule takes a node, the layout of its first input, the lengths of the output's axes and the scope,
and returns the output's layout, or None when it cannot tell.
"""

from __future__ import annotations

import onnx

from mmbm_onnx.graph import axis_moves as moves
from mmbm_onnx.graph.axes import (
    Label,
    Layout,
    Part,
    has,
    labels,
    plain,
    relabelled,
    resize,
    sizes,
    without_channels,
)
from mmbm_onnx.graph.axis_moves import Lengths, Rule
from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import attribute


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
        joined = moves.broadcast([left[:-2], right[:-2]], lengths[:-2])
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
    return moves.broadcast(known, lengths) if len(known) == len(found) else None


def _expand(node: onnx.NodeProto, first: Layout, lengths: Lengths, scope: Scope) -> Layout | None:
    return moves.broadcast([first], lengths)


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
    moves.transpose: "Transpose",
    moves.reshape: "Reshape",
    moves.flatten: "Flatten",
    moves.squeeze: "Squeeze",
    moves.unsqueeze: "Unsqueeze",
    moves.reduce: "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare",
    _global_pool: "GlobalAveragePool GlobalLpPool GlobalMaxPool",
    moves.concat: "Concat",
    moves.gather: "Gather",
    moves.depth_space: "DepthToSpace SpaceToDepth",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
# Rules that look their inputs up themselves, since the first may be a constant.
WITHOUT_FIRST = frozenset(RULES[name] for name in ("Add", "Concat", "Gemm", "MatMul"))
