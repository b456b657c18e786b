"""Which chosen tensors of a graph follow which: its shape, with all other nodes left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from mmbm_onnx.graph.walk import inner_graphs

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Flow:
    """Chosen tensors and how values get from one to another.

    Attributes:
        tensors: Names in the order in which they are computed, ``start`` first and ``end`` last.
        edges: Pairs of indices ``(before, after)``, ascending: a value gets from one tensor to the
            other with no third one in between.
    """

    tensors: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


def flow_between(graph: onnx.GraphProto, start: str, end: str, chosen: Collection[str]) -> Flow:
    """How values get from one tensor to another past chosen ones.

    Args:
        graph: The main graph. Tensors of its subgraphs count as computed where the node is that
            holds them.
        start: Name of a graph input.
        end: Name of a tensor.
        chosen: Names of tensors in between; what is not found is left out.
    """
    wanted = {*chosen, end} - {start}
    order: list[str] = [start]
    edges: list[tuple[str, str]] = []

    def walk(
        part: onnx.GraphProto, outer: Mapping[str, frozenset[str]]
    ) -> dict[str, frozenset[str]]:
        """Tensor to the chosen ones that reach it last."""
        behind = dict(outer)
        for node in part.node:
            sources = _NONE.union(*(behind.get(name, _NONE) for name in node.input))
            for _, inner in inner_graphs(node):
                carried = {info.name: sources for info in inner.input}
                found = walk(inner, {**behind, **carried})
                sources = sources.union(*(found.get(info.name, _NONE) for info in inner.output))
            for name in node.output:
                behind[name] = sources
                if name in wanted:
                    order.append(name)
                    edges.extend((source, name) for source in sources)
                    behind[name] = frozenset((name,))
        return behind

    walk(graph, {start: frozenset((start,))})
    if end in order:  # outputs for others may be computed after it
        order.remove(end)
        order.append(end)
    place = {name: index for index, name in enumerate(order)}
    pairs = {(place[before], place[after]) for before, after in edges}
    return Flow(tuple(order), tuple(sorted(pair for pair in pairs if pair[0] < pair[1])))
