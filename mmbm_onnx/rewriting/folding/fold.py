"""The hardened graph with its bounds folded into weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs

from mmbm_onnx.graph.mapped import mapped
from mmbm_onnx.graph.walk import consumed, producers
from mmbm_onnx.rewriting.bounds import bound_node, bound_output
from mmbm_onnx.rewriting.folding.plan import Plan, make_plan
from mmbm_onnx.rewriting.folding.record import Record
from mmbm_onnx.rewriting.folding.walk import Absorbed, read_graph
from mmbm_onnx.rewriting.folding.weights import as_depthwise, flushed, scaled_weights
from mmbm_onnx.rewriting.harden import insert_bounds, locate
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import Bounds, Site

_FREE_INITIALIZERS = 4  # IR version; before, each could be replaced at run time


@dataclass(frozen=True, slots=True)
class Folded:
    """A hardened graph.

    Attributes:
        proto: The graph.
        folded: Sites whose bounds per channel are one Clip now, in their order.
        kept: The other sites with a bound per channel.
        obstacle: Why none is folded, where something stands in the way of all; else nothing.
    """

    proto: onnx.ModelProto
    folded: tuple[str, ...]
    kept: tuple[str, ...]
    obstacle: str = ""


def fold_recorded(proto: onnx.ModelProto, sites: Sequence[Site], record: Record) -> Folded:
    """``fold_bounds`` with the arguments of a record."""
    return fold_bounds(
        proto, sites, record.bounds, depthwise=record.depthwise, unscaled=record.unscaled
    )


def fold_bounds(
    proto: onnx.ModelProto,
    sites: Sequence[Site],
    bounds: Bounds,
    *,
    depthwise: bool = True,
    unscaled: Collection[str] = (),
) -> Folded:
    """The model with its bounds, those per channel folded into weights where they can be.

    Up to rounding it computes what ``insert_bounds`` writes. Weights that absorb a scale are
    replaced, by others named ``<weight>/mmbm_folded``; all else stays as there, but for
    BatchNormalization in front of a folded activation, which becomes a depthwise convolution, as
    ONNX Runtime would make of it if no Clip followed.

    Args:
        proto, sites, bounds: As for ``insert_bounds``.
        depthwise: Whether depthwise convolutions may be put in (see ``plan.make_plan``). They are
            what is fastest on a CPU.
        unscaled: Values, besides the graph's outputs, that stay what they are without folding.

    Raises:
        RewriteError: As ``insert_bounds``.
    """
    per_channel = tuple(name for name, bound in bounds.items() if bound.ndim == 1)
    obstacle = ""
    if proto.ir_version < _FREE_INITIALIZERS:
        obstacle = f"at IR version {proto.ir_version} weights may be replaced at run time"
    elif mapped(proto):
        obstacle = "its weights stay in their files"
    if obstacle:
        return Folded(insert_bounds(proto, sites, bounds), (), per_channel, obstacle)
    plan = make_plan(read_graph(proto), sites, bounds, depthwise=depthwise, unscaled=unscaled)
    if not plan.limits:
        return Folded(insert_bounds(proto, sites, bounds), (), per_channel)
    writer = _Writer(proto, plan)
    writer.rescale(depthwise=depthwise)
    writer.bound(sites, bounds)
    return Folded(
        writer.export(),
        folded=tuple(name for name in per_channel if name in plan.limits),
        kept=tuple(name for name in per_channel if name not in plan.limits),
    )


class _Writer:
    def __init__(self, proto: onnx.ModelProto, plan: Plan) -> None:
        self._proto = proto
        self._plan = plan
        self._surgeon = Surgeon(proto)
        self._nodes = list(self._surgeon.graph.nodes)

    def rescale(self, *, depthwise: bool) -> None:
        """Give weights that absorb a scale their new values."""
        plan = self._plan
        normalized = self._normalized() if depthwise else set()
        for position, absorbed in plan.walk.absorbed.items():
            incoming, outgoing = plan.scale(absorbed.incoming), plan.scale(absorbed.outgoing)
            if self._proto.graph.node[position].output[0] in normalized:
                self._as_convolution(position, absorbed)
            elif not ((incoming == 1).all() and (outgoing == 1).all()):
                node = self._proto.graph.node[position]
                new = scaled_weights(plan.walk.graph, node, incoming, outgoing)
                for place, weight in new.items():
                    self._replace(position, place, weight)
        for position, (place, factors) in plan.walk.shifted.items():
            scale = plan.scale(factors)
            if not (scale == 1).all():
                values = plan.walk.graph.values(self._proto.graph.node[position].input[place])
                assert values is not None
                scaled = np.asarray(flushed(values), np.float64) / scale
                self._replace(position, place, flushed(scaled))

    def _replace(self, position: int, place: int, values: npt.NDArray[np.float32]) -> None:
        name = self._proto.graph.node[position].input[place]
        self._nodes[position].inputs[place] = self._surgeon.constant(f"{name}/mmbm_folded", values)

    def _normalized(self) -> set[str]:
        """What comes out of a BatchNormalization and into a folded activation alone."""
        plan = self._plan
        made_by = producers(self._proto.graph)
        read = [name for node in self._proto.graph.node for name in consumed(node)]
        read += [info.name for info in self._proto.graph.output]
        found = set()
        for tensor in plan.limits:
            source = made_by[tensor].input[0]
            node = made_by.get(source)
            site = plan.walk.sites[tensor]
            direct = site.rank == 4 and tensor not in plan.walk.renewed and read.count(source) == 1
            if direct and node is not None and node.op_type == "BatchNormalization":
                found.add(source)
        return found

    def _as_convolution(self, position: int, absorbed: Absorbed) -> None:
        origin, node = self._proto.graph.node[position], self._nodes[position]
        plan = self._plan
        weight, bias = as_depthwise(
            plan.walk.graph, origin, plan.scale(absorbed.incoming), plan.scale(absorbed.outgoing)
        )
        new = self._convolution(node.inputs[0], node.outputs[0], weight, bias, node.name)
        self._surgeon.graph.nodes[position] = new
        node.outputs.clear()

    def _convolution(
        self,
        source: gs.Tensor,
        target: gs.Tensor,
        weight: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None,
        name: str,
    ) -> gs.Node:
        inputs = [source, self._surgeon.constant(f"{target.name}/mmbm_weight", weight)]
        if bias is not None:
            inputs.append(self._surgeon.constant(f"{target.name}/mmbm_bias", bias))
        return gs.Node(
            "Conv",
            name=name,
            attrs={"group": len(weight), "kernel_shape": [1, 1]},
            inputs=inputs,
            outputs=[target],
        )

    def bound(self, sites: Sequence[Site], bounds: Bounds) -> None:
        """Put in the limits."""
        plan, surgeon = self._plan, self._surgeon
        for activation in locate(surgeon, sites, bounds):
            graph, node, site = activation.graph, activation.node, activation.site
            if site.tensor not in plan.walk.renewed:
                limit = plan.limits.get(site.tensor, plan.kept.get(site.tensor))
                assert limit is not None
                bound_output(surgeon, graph, node, site, limit)
                continue
            bounded = node.outputs[0]
            unbounded, scaled = (
                surgeon.variable(f"{bounded.name}/mmbm_{what}") for what in ("unbounded", "scaled")
            )
            for tensor in (unbounded, scaled):
                surgeon.describe(graph, tensor.name, like=bounded.name)
            node.outputs[0] = unbounded
            before = plan.scale(plan.walk.before[site.tensor])
            ratio = before.ravel() / plan.scale(plan.walk.of[site.tensor]).ravel()
            name = surgeon.fresh_node(f"{bounded.name}/mmbm_scaled")
            weight = flushed(ratio).reshape(-1, 1, 1, 1)
            convolution = self._convolution(unbounded, scaled, weight, None, name)
            clip = bound_node(surgeon, scaled, bounded, site, plan.limits[site.tensor])
            surgeon.insert_after(graph, node, convolution)
            surgeon.insert_after(graph, convolution, clip)

    def export(self) -> onnx.ModelProto:
        """The model, without the constants that nothing reads any more."""
        gone, idle = self._unread()
        nodes = self._surgeon.graph.nodes
        nodes[:] = [n for n in nodes if not n.outputs or not idle.issuperset(_names(n.outputs))]
        return self._surgeon.export(without=gone)

    def _unread(self) -> tuple[set[str], set[str]]:
        """What is not read any more, and what of it nodes of the main graph make."""
        graph = self._surgeon.export(without=self._surgeon.constants()).graph
        before, idle = _read(self._proto.graph), set[str]()
        while True:
            gone = before - _read(graph)
            left = [
                node
                for node in graph.node
                if node.op_type in ("Constant", "Identity") and gone.issuperset(node.output)
            ]
            if not left:
                return gone, idle
            for node in left:
                idle.update(node.output)
                graph.node.remove(node)


def _names(tensors: Iterable[gs.Tensor]) -> set[str]:
    return {tensor.name for tensor in tensors}


def _read(graph: onnx.GraphProto) -> set[str]:
    names = {info.name for info in graph.output}
    for node in graph.node:
        names |= consumed(node)
    return names
