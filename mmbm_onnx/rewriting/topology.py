"""Who produces and who reads each tensor of the main graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx_graphsurgeon as gs

from mmbm_onnx.rewriting.surgeon import Surgeon, captures

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


class Topology:
    """A snapshot of the main graph; tensors by name, nodes by position.

    Attributes:
        nodes: Nodes in graph order.
        reads: For each node the tensors it reads, captures of its subgraphs included.
        producer: Tensor name to the position of its node.
        edges: How often each tensor is read, as a graph output included.
        constant: Names of the tensors that depend on initializers and constants alone.
    """

    def __init__(self, surgeon: Surgeon) -> None:
        graph = surgeon.graph
        self.nodes: list[gs.Node] = list(graph.nodes)
        self.reads = [
            [t.name for t in node.inputs if not t.is_empty()] + captures(node)
            for node in self.nodes
        ]
        self.producer = {
            tensor.name: position
            for position, node in enumerate(self.nodes)
            for tensor in node.outputs
            if not tensor.is_empty()
        }
        self._tensors = {tensor.name: tensor for tensor in graph.inputs}
        for node in self.nodes:
            self._tensors.update({t.name: t for t in (*node.inputs, *node.outputs)})
        self.edges = Counter(name for names in self.reads for name in names)
        self.edges.update(tensor.name for tensor in graph.outputs)
        self.constant = set(surgeon.initializers)
        for node, names in zip(self.nodes, self.reads, strict=True):
            if node.op not in _RANDOM and all(name in self.constant for name in names):
                self.constant.update(t.name for t in node.outputs if not t.is_empty())

    def tensor(self, name: str) -> gs.Tensor:
        """The tensor of that name; initializers that only subgraphs read get one made."""
        return self._tensors.setdefault(name, gs.Variable(name))

    def downstream(self, names: Iterable[str], nodes: Iterable[int] = ()) -> set[int]:
        """Positions of all nodes that depend on the tensors ``names``, and of ``nodes`` and all
        that depend on those."""
        reached, found = set(names), set(nodes)
        for position, node in enumerate(self.nodes):
            if position in found or not reached.isdisjoint(self.reads[position]):
                found.add(position)
                reached.update(t.name for t in node.outputs if not t.is_empty())
        return found

    def upstream(self, names: Iterable[str]) -> set[int]:
        """Positions of all nodes that the tensors ``names`` depend on."""
        wanted, found = set(names), set()
        for position in reversed(range(len(self.nodes))):
            if any(tensor.name in wanted for tensor in self.nodes[position].outputs):
                found.add(position)
                wanted.update(self.reads[position])
        wanted.discard("")
        return found
