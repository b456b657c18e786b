"""A shadow, and how it gets into the detector graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.rewriting.folding.record import Record
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import ShadowKind

SHADOW = "mmbm_shadow/"
"""What its nodes and tensors are named after."""
KIND = "shadow"
"""Provenance key of a detector: the kind of its shadow."""


@dataclass(frozen=True, eq=False)
class Shadow:
    """A bounded branch that is not made of the original's nodes.

    Attributes:
        kind: How its weights are stored.
        proto: A graph of its own with one input, the model's, and one output, the bounded logits,
            both float32; no node has a subgraph.
        record: What was folded.
        folded: What that gave: the hardened graph.
    """

    kind: ShadowKind
    proto: onnx.ModelProto
    record: Record
    folded: onnx.ModelProto


def graft(surgeon: Surgeon, shadow: Shadow, graph: gs.Graph, fed: gs.Tensor) -> gs.Tensor:
    """Append a shadow's nodes to a graph, with its weights.

    Args:
        surgeon: The model being changed.
        shadow: What to append.
        graph: The main graph, or one that will be an attribute of a node there.
        fed: What the shadow reads.

    Returns:
        Its logits.
    """
    body = shadow.proto.graph
    known: dict[str, gs.Tensor] = {body.input[0].name: fed, "": gs.Variable.empty()}
    for tensor in body.initializer:
        known[tensor.name] = surgeon.constant(SHADOW + tensor.name, to_array(tensor))
    for origin in body.node:
        known |= {name: surgeon.variable(SHADOW + name) for name in origin.output if name}
        inputs, outputs = (
            [known[name] for name in names] for names in (origin.input, origin.output)
        )
        graph.nodes.append(surgeon.adopt_node(origin, SHADOW, inputs, outputs))
    return known[body.output[0].name]
