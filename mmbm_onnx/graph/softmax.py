"""A softmax that is written out: ``exp(l - max(l)) / sum(exp(l - max(l)))``, as jax exports it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from mmbm_onnx.graph.walk import STANDARD_DOMAINS, attribute, constant_values

_SAME = frozenset({"Cast", "Identity"})
# What takes a number per row to the shape of the rows.
_SPREADS = _SAME | {"Expand", "Reshape", "Squeeze", "Tile", "Unsqueeze"}

Makers = Mapping[str, onnx.NodeProto]


def behind_written_softmax(
    node: onnx.NodeProto, made_by: Makers, graph: onnx.GraphProto
) -> str | None:
    """Logits of the softmax over the last axis that ends in a node; None where there is none.

    Args:
        node: A Div, or a Mul by a reciprocal.
        made_by: Tensor name to the node that makes it.
        graph: Where all of this is.
    """
    parts = _parts(node, made_by)
    if parts is None:
        return None
    top, bottom = parts
    powers, total = _maker(top, _SAME, made_by), _maker(bottom, _SPREADS, made_by)
    if powers is None or powers.op_type != "Exp" or total is None:
        return None
    if not _reduces("ReduceSum", total, powers, made_by, graph):
        return None
    shifted = _maker(powers.input[0], _SAME, made_by)
    if shifted is None or shifted.op_type != "Sub":
        return str(powers.input[0])
    logits, shift = shifted.input
    largest = _maker(shift, _SPREADS, made_by)
    if largest is not None and largest.op_type == "Max":  # with a smallest number there is
        known = constant_values(graph)
        free = [name for name in largest.input if name not in known]
        largest = _maker(free[0], _SPREADS, made_by) if len(free) == 1 else None
    source = _maker(logits, _SAME, made_by)
    if largest is None or not _reduces("ReduceMax", largest, source, made_by, graph, logits):
        return str(powers.input[0])  # exp of a difference of other things
    return str(logits)


def _parts(node: onnx.NodeProto, made_by: Makers) -> tuple[str, str] | None:
    """What is divided, and by what."""
    if node.op_type == "Div":
        return node.input[0], node.input[1]
    if node.op_type == "Mul":
        for top, factor in (tuple(node.input), tuple(reversed(node.input))):
            inverse = _maker(factor, _SPREADS, made_by)
            if inverse is not None and inverse.op_type == "Reciprocal":
                return top, inverse.input[0]
    return None


def _maker(name: str, through: frozenset[str], made_by: Makers) -> onnx.NodeProto | None:
    """The node that makes a tensor's values."""
    node = made_by.get(name)
    while node is not None and node.domain in STANDARD_DOMAINS and node.op_type in through:
        node = made_by.get(node.input[0])
    return node if node is not None and node.domain in STANDARD_DOMAINS else None


def _reduces(
    kind: str,
    node: onnx.NodeProto,
    source: onnx.NodeProto | None,
    made_by: Makers,
    graph: onnx.GraphProto,
    name: str = "",
) -> bool:
    """Whether a node reduces what a source makes, or a tensor of that name, over the last axis."""
    if node.op_type != kind:
        return False
    reduced = node.input[0]
    if reduced != name and (source is None or _maker(reduced, _SAME, made_by) is not source):
        return False
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        tensor = constant_values(graph).get(node.input[1])
        axes = None if tensor is None else numpy_helper.to_array(tensor).ravel().tolist()
    return axes is not None and list(axes) in ([1], [-1])
