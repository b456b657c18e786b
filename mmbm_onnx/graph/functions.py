"""Local functions that hide activations are inlined, so that every activation has a name."""

from __future__ import annotations

from collections import Counter

import onnx
import onnx.inliner

from mmbm_onnx.errors import ModelError, listing
from mmbm_onnx.graph.walk import STANDARD_DOMAINS, graphs
from mmbm_onnx.graph.written_out import TELLTALE
from mmbm_onnx.types import ACTIVATIONS

# And what those that are written out are known by.
_INLINED = TELLTALE | {*ACTIVATIONS}
_MOST_NODES = 1_000_000  # a few nested functions can stand for more nodes than memory holds

_Key = tuple[str, str]


def inline_activation_functions(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Inline the local functions in which an activation lives, directly or through calls.

    A function may be called from several places, each with activations of its own that need
    bounds of their own; other functions stay as they are.

    Args:
        proto: A checked model; not changed.

    Returns:
        The model (the argument itself when nothing was inlined) and the names of the functions.

    Raises:
        ModelError: The functions cannot be inlined: they need another operator set than the
            model, or stand for more nodes than can be held.
    """
    if not proto.functions:
        return proto, ()
    bodies = {(function.domain, function.name): _nodes(function) for function in proto.functions}
    calls = {
        key: Counter(called for node in nodes if (called := (node.domain, node.op_type)) in bodies)
        for key, nodes in bodies.items()
    }
    chosen = {
        key
        for key, nodes in bodies.items()
        if any(node.op_type in _INLINED and node.domain in STANDARD_DOMAINS for node in nodes)
    }
    while grown := {key for key, used in calls.items() if key not in chosen and chosen & {*used}}:
        chosen |= grown
    if not chosen:
        return proto, ()
    names = tuple(f"{domain}::{name}" for domain, name in sorted(chosen))
    label = proto.graph.name or "model"
    _check_size(proto, bodies, calls, label)
    try:
        inlined = onnx.inliner.inline_selected_functions(proto, sorted(chosen), exclude=False)
    except Exception as error:  # the inliner raises bare RuntimeErrors
        text = " ".join(str(error).split())
        raise ModelError(
            f"{label}: the local functions {listing(names)} cannot be inlined ({text}); "
            "export the model without local functions"
        ) from None
    _import_their_operators(inlined, proto, chosen)
    return inlined, names


def _nodes(function: onnx.FunctionProto) -> list[onnx.NodeProto]:
    body = onnx.GraphProto(node=function.node)
    return [node for _, graph in graphs(body) for node in graph.node]


def _check_size(
    proto: onnx.ModelProto,
    bodies: dict[_Key, list[onnx.NodeProto]],
    calls: dict[_Key, Counter[_Key]],
    label: str,
) -> None:
    weights: dict[_Key, int] = {}
    while len(weights) < len(bodies):  # callees before callers; the checker refuses cycles
        ready = [
            key for key in bodies if key not in weights and calls[key].keys() <= weights.keys()
        ]
        if not ready:
            raise ModelError(f"{label}: its local functions call each other in a circle")
        for key in ready:
            inner = sum(weights[called] * count for called, count in calls[key].items())
            weights[key] = len(bodies[key]) + inner
    used = [node for _, graph in graphs(proto.graph) for node in graph.node]
    total = sum(weights.get((node.domain, node.op_type), 1) for node in used)
    if total > _MOST_NODES:
        raise ModelError(
            f"{label}: its local functions stand for {total} nodes; at most {_MOST_NODES} can be "
            "worked with"
        )


def _import_their_operators(
    inlined: onnx.ModelProto, proto: onnx.ModelProto, chosen: set[_Key]
) -> None:
    """Import what only the inlined functions imported."""
    present = {*STANDARD_DOMAINS, *(entry.domain for entry in inlined.opset_import)}
    for function in proto.functions:
        if (function.domain, function.name) not in chosen:
            continue
        for entry in function.opset_import:
            if entry.domain not in present:
                inlined.opset_import.append(entry)
                present.add(entry.domain)
