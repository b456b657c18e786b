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
    powers = _source(parts[0], _SAME, made_by)
    exponential = _made(powers, "Exp", made_by)
    if exponential is None:
        return None
    known = constant_values(graph)
    if _reduced("ReduceSum", parts[1], made_by, known) != powers:
        return None
    exponent = str(exponential.input[0])
    shifted = _made(_source(exponent, _SAME, made_by), "Sub", made_by)
    if shifted is None:
        return exponent
    logits, largest = shifted.input
    limited = _made(_source(largest, _SPREADS, made_by), "Max", made_by)
    if limited is not None:  # with a smallest number there is
        free = [name for name in limited.input if name not in known]
        largest = free[0] if len(free) == 1 else ""
    if _reduced("ReduceMax", largest, made_by, known) != _source(logits, _SAME, made_by):
        return exponent  # of a difference of other things
    return str(logits)


def _parts(node: onnx.NodeProto, made_by: Makers) -> tuple[str, str] | None:
    """What is divided, and by what."""
    if node.op_type == "Div":
        return node.input[0], node.input[1]
    if node.op_type == "Mul":
        for top, factor in (tuple(node.input), tuple(reversed(node.input))):
            inverse = _made(_source(factor, _SPREADS, made_by), "Reciprocal", made_by)
            if inverse is not None:
                return top, inverse.input[0]
    return None


def _source(name: str, through: frozenset[str], made_by: Makers) -> str:
    """The tensor that another has its values from."""
    node = made_by.get(name)
    while node is not None and node.domain in STANDARD_DOMAINS and node.op_type in through:
        name = node.input[0]
        node = made_by.get(name)
    return name


def _made(name: str, kind: str, made_by: Makers) -> onnx.NodeProto | None:
    """The node that makes a tensor, if it is of a kind."""
    node = made_by.get(name)
    if node is None or node.domain not in STANDARD_DOMAINS or node.op_type != kind:
        return None
    return node


def _reduced(
    kind: str, name: str, made_by: Makers, known: Mapping[str, onnx.TensorProto]
) -> str | None:
    """The tensor whose last axis a tensor is the reduction of; None where it is none."""
    node = _made(_source(name, _SPREADS, made_by), kind, made_by)
    if node is None:
        return None
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1] in known:
        axes = numpy_helper.to_array(known[node.input[1]]).ravel().tolist()
    if axes is None or list(axes) not in ([1], [-1]):
        return None
    return _source(node.input[0], _SAME, made_by)
