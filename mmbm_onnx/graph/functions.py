"""Local functions that hide activations are inlined, so that every activation has a name."""

from __future__ import annotations

import onnx
import onnx.inliner

from mmbm_onnx.graph.walk import graphs

_ACTIVATIONS = ("Relu", "Clip")


def inline_activation_functions(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Inline the local functions in which a Relu or Clip lives, directly or through calls.

    A function may be called from several places, each with activations of its own that need
    bounds of their own; other functions stay as they are.

    Returns:
        The model (the argument itself when nothing was inlined) and the names of the functions.
    """
    if not proto.functions:
        return proto, ()
    identities = {(function.domain, function.name) for function in proto.functions}
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    chosen: set[tuple[str, str]] = set()
    for function in proto.functions:
        identity = (function.domain, function.name)
        body = onnx.GraphProto(node=function.node)
        nodes = [node for _, graph in graphs(body) for node in graph.node]
        calls[identity] = {(node.domain, node.op_type) for node in nodes} & identities
        if any(node.op_type in _ACTIVATIONS for node in nodes):
            chosen.add(identity)
    while grown := {key for key, used in calls.items() if key not in chosen and used & chosen}:
        chosen |= grown
    if not chosen:
        return proto, ()
    inlined = onnx.inliner.inline_selected_functions(proto, sorted(chosen), exclude=False)
    return inlined, tuple(f"{domain}::{name}" for domain, name in sorted(chosen))
