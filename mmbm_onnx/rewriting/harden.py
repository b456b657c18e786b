"""The hardened graph: the original with its bounds, and nothing else changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.bounds import bound_output
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import Bounds, Site


@dataclass(frozen=True, slots=True)
class Activation:
    """Where a site lives: its graph (main or sub) and the node that produces it."""

    graph: gs.Graph
    node: gs.Node
    site: Site


def insert_bounds(proto: onnx.ModelProto, sites: Sequence[Site], bounds: Bounds) -> onnx.ModelProto:
    """The model with an upper bound on every site that has one in ``bounds``.

    Same inputs, outputs, opset, IR version, metadata and initializers; every node stays, in its
    order. A bounded tensor keeps its name, so its readers and the graph's outputs keep theirs:
    the activation now produces ``<tensor>/mmbm_unbounded`` and a Clip or Min (see ``bounds``)
    after it produces the tensor; a Clip used as ReLU6 gets a lower upper limit instead.

    Args:
        proto: A checked model; not changed.
        sites: What is known of its activations. Those without a bound stay as they are.
        bounds: Bound of each tensor, float32, ``()`` or ``(channels,)``.

    Raises:
        RewriteError: A bound has no site, does not fit it, or cannot be said at the model's opset.
    """
    surgeon = Surgeon(proto)
    for activation in locate(surgeon, sites, bounds):
        tensor = activation.site.tensor
        bound_output(surgeon, activation.graph, activation.node, activation.site, bounds[tensor])
    return surgeon.export()


def locate(surgeon: Surgeon, sites: Sequence[Site], bounds: Bounds) -> list[Activation]:
    """Find the activations to bound, in the order of ``bounds``.

    Raises:
        RewriteError: A bound has no site, or a site's tensor is produced nowhere, more than once,
            or by another operator than the site says.
    """
    known = {site.tensor: site for site in sites}
    missing = [tensor for tensor in bounds if tensor not in known]
    if missing:
        raise RewriteError(f"there are bounds for {missing[0]!r}, which is no activation site")
    found: dict[str, list[tuple[gs.Graph, gs.Node]]] = {tensor: [] for tensor in bounds}
    for graph in surgeon.graphs():
        for node in graph.nodes:
            for tensor in node.outputs:
                if tensor.name in found:
                    found[tensor.name].append((graph, node))
    activations = []
    for tensor, places in found.items():
        if len(places) != 1:
            count = "no node" if not places else f"{len(places)} nodes"
            raise RewriteError(f"cannot bound {tensor!r}: {count} in the graph produces it")
        graph, node = places[0]
        site = known[tensor]
        operator = site.written_out or site.kind
        if node.op != operator:
            raise RewriteError(f"cannot bound {tensor!r}: it comes from {node.op}, not {operator}")
        activations.append(Activation(graph, node, site))
    return activations
