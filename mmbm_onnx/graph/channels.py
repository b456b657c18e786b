"""Which axis of an activation holds its channels.

The axis follows from what computes the activation: Conv puts its filters on axis 1, MatMul its
output features on the last axis, Transpose and Reshape move them. The layout alone cannot tell: a
model with NHWC input has both kinds of activation inside. So every tensor's axes are followed
from the graph's inputs on (see ``axes`` and ``axis_rules``); what no rule describes is unknown,
and an unknown axis is never taken for the channels.
"""

from __future__ import annotations

import math

import onnx

from mmbm_onnx.graph.axes import Label, Layout, Part, Size, channel_of, plain, settled
from mmbm_onnx.graph.axis_rules import RULES, WITHOUT_FIRST
from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import STANDARD_DOMAINS, subgraphs

_CONSTANT_SOURCES = frozenset({"Constant", "ConstantOfShape", "EyeLike"})


def channel_axis(tensor: str, scope: Scope) -> int | None:
    """Axis of the channels of ``tensor``, counted from 0, or None when it cannot be told.

    It is the axis of the output features of the last weighted operator (Conv, MatMul, Gemm), or,
    before any, of the operators whose definition names one (normalisation, pooling); never the
    batch axis. The nodes before ``tensor`` have been followed.

    Args:
        tensor: Name of an activation.
        scope: The graph it lives in.
    """
    return channel_of(scope.layouts.get(tensor))


def length(tensor: str, axis: int, scope: Scope) -> int | None:
    """Length of an axis of ``tensor``, from its type or what the axis is made of, or None."""
    known = (scope.sizes(tensor) or ())[axis]
    if isinstance(known, int):
        return known
    factors = [part.size for part in scope.layouts[tensor][axis] if isinstance(part.size, int)]
    return math.prod(factors) if len(factors) == len(scope.layouts[tensor][axis]) else None


def start(scope: Scope) -> None:
    """Note the layouts of the inputs of the main graph: axis 0 is the batch."""
    for info in scope.graph.input:
        lengths = scope.sizes(info.name)
        if lengths and info.name not in scope.values:
            scope.layouts[info.name] = ((Part(lengths[0], Label.BATCH),), *plain(lengths[1:]))


def follow(node: onnx.NodeProto, scope: Scope) -> None:
    """Note the layouts of a node's outputs, those of its inputs being noted."""
    if _is_fixed(node, scope):
        scope.fixed.update({name: True for name in node.output if name})
        return
    rule = RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
    first = scope.layouts.get(node.input[0]) if node.input else None
    if rule in WITHOUT_FIRST:
        first = first or ()
    elif not first:
        rule = None
    for name in node.output:
        lengths = scope.sizes(name) if name else None
        if lengths is None:
            continue
        layout = rule(node, first or (), lengths, scope) if rule and lengths else None
        if layout is None or len(layout) != len(lengths):
            layout = _unknown(lengths, scope.batch)
        scope.layouts[name] = settled(layout, lengths)


def _is_fixed(node: onnx.NodeProto, scope: Scope) -> bool:
    read = [name for name in node.input if name]
    if not read:
        return node.op_type in _CONSTANT_SOURCES
    if any(subgraphs(entry) for entry in node.attribute):
        return False
    return all(scope.is_fixed(name) for name in read)


def _unknown(lengths: tuple[Size, ...], batch: str | None) -> Layout:
    return tuple(
        (Part(size, Label.BATCH if batch and size == batch else Label.UNKNOWN),) for size in lengths
    )
