"""The bounded branch: copies of the nodes behind the first bound, beside the original's.

Unflagged answers must stay bit-identical to the original model's. Runtimes fuse a node with its
only reader (Conv, Add and Relu, say), and a fused node may round differently. So the branch never
becomes the second reader of a tensor that has one: it computes such a tensor again. The copy reads
through a one-input Max, which is exact, since otherwise common subexpression elimination would
merge the two and bring the second reader back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.bounds import bound_node, bound_output
from mmbm_onnx.rewriting.harden import Activation
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.rewriting.shadow.branch import Shadow, graft
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.rewriting.topology import Topology
from mmbm_onnx.types import Bounds

BOUNDED = "mmbm_bounded/"
CORRECTED = "mmbm_corrected/"
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FLOATS = (*_HALF, TensorProto.FLOAT, TensorProto.DOUBLE)


class Branch:
    """Builds copies at the end of a graph; the original nodes are not touched.

    They go into the main graph, or into ``graph``, a new one that will be an attribute of a node
    there; then ``feeds`` are read in the place of the model's inputs, and nothing is shared but
    weights. With a ``shadow`` nothing at all is copied: that is the branch then.

    Attributes:
        heads: Names of the graph outputs that are the logits or derived from them.
        unbounded: Once built, the branch's value of each main-graph site before its bound, by the
            site's tensor name.

    Raises:
        RewriteError: The logits are not in the main graph, or depend on no bounded activation; or
            there is a shadow, and what lies behind the logits reads more than these.
    """

    def __init__(
        self,
        surgeon: Surgeon,
        activations: Sequence[Activation],
        bounds: Bounds,
        logits: str,
        types: Mapping[str, onnx.TypeProto],
        *,
        share_prefix: bool,
        graph: gs.Graph | None = None,
        feeds: Mapping[str, gs.Tensor] | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._surgeon = surgeon
        self._graph = surgeon.graph if graph is None else graph
        self._feeds = feeds or {}
        self._bounds = bounds
        self._logits = logits
        self._types = types
        self._topology = topology = Topology(surgeon)
        if logits not in topology.producer:
            raise RewriteError(f"no node of the main graph produces the logits {logits!r}")
        main = [item for item in activations if item.graph is surgeon.graph]
        self._sites = {item.site.tensor: item for item in main}
        self._inner = [item for item in activations if item.graph is not surgeon.graph]
        carriers = self._carriers()
        behind = topology.downstream([logits])
        outputs = {t.name: topology.producer.get(t.name) for t in surgeon.graph.outputs if t.name}
        self.heads = [
            name for name, position in outputs.items() if name == logits or position in behind
        ]
        needed = topology.upstream([logits, *self.heads])
        bounded = topology.downstream(self._sites, carriers)
        if logits not in self._sites and topology.producer[logits] not in bounded:
            raise RewriteError(f"the logits {logits!r} depend on no bounded activation")
        if not share_prefix:
            weights = topology.constant
            fed = [t.name for t in surgeon.graph.inputs if t.name not in weights]
            bounded |= topology.downstream(fed)
        self._head_nodes = sorted(behind & needed)
        self._copied = (bounded & needed) - behind
        self._shadow = shadow
        if shadow is not None:
            self._check_heads()
        self.unbounded: dict[str, gs.Tensor] = {}
        self._values: dict[str, gs.Tensor] = {}
        self._private: dict[str, gs.Tensor] = {}
        self._weights: dict[str, gs.Tensor] = {}

    def _carriers(self) -> set[int]:
        """Positions of the main graph's nodes with a bounded activation in their subgraphs."""
        inner = {id(item.graph) for item in self._inner}
        return {
            position
            for position, node in enumerate(self._topology.nodes)
            if any(id(graph) in inner for graph in node.subgraphs(recursive=True))
        }

    def build(self) -> gs.Tensor:
        """Append the bounded branch; returns the bounded logits."""
        if self._shadow is not None:
            name = self._shadow.proto.graph.input[0].name
            fed = self._feeds.get(name, self._topology.tensor(name))
            return graft(self._surgeon, self._shadow, self._graph, fed)
        for position in sorted(self._copied):
            self._copy(position, BOUNDED, self._value, self._values)
        return self._value(self._logits)

    def _check_heads(self) -> None:
        topology = self._topology
        known = {self._logits, *topology.constant}
        for position in self._head_nodes:
            for name in topology.reads[position]:
                if name not in known:
                    raise RewriteError(
                        f"what lies behind the logits {self._logits!r} reads {name!r}, too"
                    )
            known.update(t.name for t in topology.nodes[position].outputs)

    def build_heads(self, logits: gs.Tensor) -> dict[str, gs.Tensor]:
        """Append copies of what lies behind the logits, fed with ``logits``.

        Returns:
            Every name in ``heads`` with the tensor that answers for it.
        """
        made: dict[str, gs.Tensor] = {self._logits: logits}

        def read(name: str) -> gs.Tensor:
            return made[name] if name in made else self._value(name)

        for position in self._head_nodes:
            self._copy(position, CORRECTED, read, made)
        return {name: made[name] for name in self.heads}

    def _copy(
        self,
        position: int,
        prefix: str,
        read: Callable[[str], gs.Tensor],
        made: dict[str, gs.Tensor],
    ) -> None:
        node = self._topology.nodes[position]
        graph = self._graph
        inputs = {name: read(name) for name in self._topology.reads[position]}
        copy = self._surgeon.copy_node(node, prefix, inputs)
        graph.nodes.append(copy)
        for original, new in zip(node.outputs, copy.outputs, strict=True):
            if original.is_empty():
                continue
            made[original.name] = new
            self._describe(new.name, like=original.name)
            if prefix == BOUNDED and original.name in self._sites:
                site = self._sites[original.name].site
                self.unbounded[site.tensor] = bound_output(
                    self._surgeon, graph, copy, site, self._bounds[site.tensor]
                )
        if prefix == BOUNDED:
            self._bound_inside(node, copy)

    def _elem_type(self, name: str) -> int:
        """ONNX element type of a tensor, 0 where it is not known."""
        return int(self._types[name].tensor_type.elem_type) if name in self._types else 0

    def _describe(self, name: str, like: str) -> None:
        if self._graph is self._surgeon.graph:  # elsewhere the batch is another
            self._surgeon.describe(self._graph, name, like=like)

    def _bound_inside(self, node: gs.Node, copy: gs.Node) -> None:
        places = {
            id(old): new
            for old, new in zip(
                node.subgraphs(recursive=True), copy.subgraphs(recursive=True), strict=True
            )
        }
        for item in self._inner:
            if id(item.graph) not in places:
                continue
            graph, site = places[id(item.graph)], item.site
            for inner in list(graph.nodes):
                if any(tensor.name == site.tensor for tensor in inner.outputs):
                    bound_output(self._surgeon, graph, inner, site, self._bounds[site.tensor])

    def _value(self, name: str) -> gs.Tensor:
        """What the bounded branch reads where the original reads ``name``."""
        if name not in self._values:
            self._values[name] = self._first_value(name)
        return self._values[name]

    def _first_value(self, name: str) -> gs.Tensor:
        topology, graph = self._topology, self._graph
        if name in self._feeds:
            return self._feeds[name]
        if name in self._sites:
            source, site = topology.tensor(name), self._sites[name].site
            target = self._surgeon.variable(BOUNDED + name)
            self._describe(target.name, like=name)
            bound = self._bounds[name]
            graph.nodes.append(bound_node(self._surgeon, source, target, site, bound))
            self.unbounded[name] = source
            return target
        if name in topology.constant:
            return self._weight(name)
        if name not in topology.producer or topology.edges[name] > 1:
            return topology.tensor(name)
        return self._private_value(name)

    def _private_value(self, name: str) -> gs.Tensor:
        """``name`` computed again, from tensors that may take another reader."""
        if name in self._private:
            return self._private[name]
        topology = self._topology
        if name in topology.constant:
            value = self._weight(name)
        elif name in topology.producer and topology.edges[name] == 1:
            self._copy(topology.producer[name], BOUNDED, self._private_value, self._private)
            return self._private[name]
        else:
            value = self._alias(name)
        self._private[name] = value
        return value

    def _weight(self, name: str) -> gs.Tensor:
        """The same weight for both branches, stored once.

        ONNX Runtime widens half-precision weights when it loads a model for the CPU, but only
        those with one reader, and picks other kernels for the rest. So there the branch reads the
        weight through a Reshape to its own shape, which is computed once, at loading.
        """
        source = self._topology.tensor(name)
        if self._elem_type(name) not in _HALF:
            return source
        if name not in self._weights:
            ops = Operators(self._surgeon, BOUNDED, self._graph)
            shape = ops.add("Shape", source, name=f"{name}/shape")
            self._weights[name] = ops.add("Reshape", source, shape, name=name)
        return self._weights[name]

    def _alias(self, name: str) -> gs.Tensor:
        source = self._topology.tensor(name)
        if self._elem_type(name) not in _FLOATS:
            return source  # integers do not round, whatever is fused
        return Operators(self._surgeon, BOUNDED, self._graph).add("Max", source, name=name)
