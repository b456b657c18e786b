"""A model opened for surgery with graphsurgeon, and closed again without losing anything.

graphsurgeon keeps topology well and protos badly: its round trip drops metadata, documentation,
unused and overridable initializers, attributes it has no Python form for, value details and
function overloads. So only topology goes through it. Every node remembers the ``NodeProto`` it
came from, and ``export`` writes the original protos back with nothing but their names replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.walk import standard_opset
from mmbm_onnx.rewriting.protos import copy_fields, skeleton

# From this IR version on an initializer need not be a graph input as well (ONNX IR spec).
_FREE_INITIALIZERS = 4


class Surgeon:
    """One model on the table; the model given is read, never changed.

    Attributes:
        graph: Topology of the main graph. Original nodes carry only subgraphs in ``attrs``;
            any other entry put there overrides (or adds) that attribute. A ``gs.Constant`` among
            a node's inputs is a new constant. Initializers of the model appear as variables.
        opset: Version of the standard operator set.
        initializers: Names of the main graph's initializers.

    Raises:
        RewriteError: The model imports no standard operator set, or holds a list of graphs in one
            attribute, which no standard operator does.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        opset = standard_opset(proto.opset_import)
        if opset is None:
            raise RewriteError("the model imports no version of the standard operator set ai.onnx")
        self.opset = opset
        self.initializers = {tensor.name for tensor in proto.graph.initializer} | {
            sparse.values.name for sparse in proto.graph.sparse_initializer
        }
        self._proto = proto
        self._origins: dict[int, tuple[gs.Node, onnx.NodeProto]] = {}
        self._bodies: dict[int, tuple[gs.Graph, onnx.GraphProto]] = {}
        self._types: dict[int, list[onnx.ValueInfoProto]] = {}
        self._tensor_names: set[str] = set()
        self._node_names: set[str] = set()
        self.graph: gs.Graph = gs.import_onnx(skeleton(proto))
        self._bind(self.graph, proto.graph, {})

    def _bind(self, graph: gs.Graph, body: onnx.GraphProto, outer: Mapping[str, gs.Tensor]) -> None:
        self._bodies[id(graph)] = (graph, body)
        self._tensor_names.update(tensor.name for tensor in body.initializer)
        self._tensor_names.update(sparse.values.name for sparse in body.sparse_initializer)
        self._tensor_names.update(info.name for info in (*body.input, *body.output))
        self._tensor_names.update(info.name for info in body.value_info)
        visible = {**outer, **{tensor.name: tensor for tensor in graph.inputs}}
        for node, origin in zip(graph.nodes, body.node, strict=True):
            self._origins[id(node)] = (node, origin)
            self._node_names.add(origin.name)
            self._tensor_names.update((*origin.input, *origin.output))
            for attribute in origin.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._bind(node.attrs[attribute.name], attribute.g, visible)
            visible.update({tensor.name: tensor for tensor in node.outputs})
        # graphsurgeon makes a second tensor where a subgraph hands on an outer value as it is.
        own = _defined(graph)
        graph.outputs = [
            outer[tensor.name] if tensor.name in outer and tensor.name not in own else tensor
            for tensor in graph.outputs
        ]

    def graphs(self) -> Iterator[gs.Graph]:
        """The main graph and every subgraph below it, as they are now."""
        yield self.graph
        yield from self.graph.subgraphs(recursive=True)

    def names(self) -> frozenset[str]:
        """Every tensor name in use, in any scope."""
        return frozenset(self._tensor_names)

    def fresh(self, name: str) -> str:
        """``name``, or ``name_1``, ``name_2``, ... if a tensor is called that; then taken."""
        return _unique(name, self._tensor_names)

    def fresh_node(self, name: str) -> str:
        """The same for the names of nodes."""
        return _unique(name, self._node_names)

    def new_graph(self, name: str) -> gs.Graph:
        """An empty graph, to become an attribute of a new node."""
        graph = gs.Graph(nodes=[], inputs=[], outputs=[], name=name, opset=self.opset)
        self._bodies[id(graph)] = (graph, onnx.GraphProto(name=name))
        return graph

    def constant(self, name: str, values: npt.NDArray[Any]) -> gs.Constant:
        """A new constant; an initializer, or a Constant node where the IR is below 4."""
        return gs.Constant(self.fresh(name), values)

    def variable(self, name: str) -> gs.Variable:
        """A new tensor."""
        return gs.Variable(self.fresh(name))

    def insert_after(self, graph: gs.Graph, anchor: gs.Node, node: gs.Node) -> None:
        """Put a new node right after another one of the same graph."""
        for index, present in enumerate(graph.nodes):  # by identity: nodes compare by content
            if present is anchor:
                graph.nodes.insert(index + 1, node)
                return
        raise ValueError(f"node {anchor.name!r} is not in this graph")

    def copy_node(self, node: gs.Node, prefix: str, read: Mapping[str, gs.Tensor]) -> gs.Node:
        """A copy of an original node with new outputs, its subgraphs copied with it.

        Args:
            node: An original node, or a copy of one.
            prefix: Put before the names of the node and of its outputs.
            read: What the copy reads instead of the tensors of these names, captures of its
                subgraphs included; other tensors stay shared.
        """
        copy = gs.Node(
            node.op,
            name=self.fresh_node(prefix + (node.name or node.op)),
            attrs={
                name: self._copy_graph(value, read) if isinstance(value, gs.Graph) else value
                for name, value in node.attrs.items()
            },
            inputs=[_copied(tensor, read) for tensor in node.inputs],
            outputs=[
                gs.Variable.empty() if tensor.is_empty() else self.variable(prefix + tensor.name)
                for tensor in node.outputs
            ],
            domain=node.domain,
        )
        self._origins[id(copy)] = (copy, self._origins[id(node)][1])
        return copy

    def adopt_node(
        self,
        origin: onnx.NodeProto,
        prefix: str,
        inputs: Sequence[gs.Tensor],
        outputs: Sequence[gs.Tensor],
    ) -> gs.Node:
        """A node of another model, without subgraphs, to be put into a graph of this one.

        Args:
            origin: Where its operator and attributes are.
            prefix: Put before its name.
            inputs, outputs: What it reads and computes here.
        """
        node = gs.Node(
            origin.op_type,
            name=self.fresh_node(prefix + (origin.name or origin.op_type)),
            inputs=list(inputs),
            outputs=list(outputs),
            domain=origin.domain or None,
        )
        self._origins[id(node)] = (node, origin)
        return node

    def _copy_graph(self, graph: gs.Graph, read: Mapping[str, gs.Tensor]) -> gs.Graph:
        body = self._bodies[id(graph)][1]
        inside: dict[str, gs.Tensor] = {name: gs.Variable(name) for name in _defined(graph)}
        inside.update({tensor.name: gs.Variable(tensor.name) for tensor in body.initializer})
        seen = {**read, **inside}
        nodes = []
        for node in graph.nodes:
            copy = gs.Node(
                node.op,
                name=node.name,
                attrs={
                    name: self._copy_graph(value, seen) if isinstance(value, gs.Graph) else value
                    for name, value in node.attrs.items()
                },
                inputs=[_copied(tensor, seen) for tensor in node.inputs],
                outputs=[_copied(tensor, inside) for tensor in node.outputs],
                domain=node.domain,
            )
            if id(node) in self._origins:
                self._origins[id(copy)] = (copy, self._origins[id(node)][1])
            nodes.append(copy)
        new = gs.Graph(
            nodes=nodes,
            inputs=[inside[tensor.name] for tensor in graph.inputs],
            outputs=[_copied(tensor, seen) for tensor in graph.outputs],
            opset=self.opset,
        )
        self._bodies[id(new)] = (new, body)
        return new

    def describe(self, graph: gs.Graph, name: str, like: str) -> None:
        """Give a new tensor the declared type of another of the same graph, if it has one."""
        body = self._bodies[id(graph)][1]
        for info in (*body.value_info, *body.output):
            if info.name == like:
                new = onnx.ValueInfoProto(name=name)
                new.type.CopyFrom(info.type)
                self._types.setdefault(id(graph), []).append(new)
                return

    def append_output(self, tensor: gs.Tensor, info: onnx.ValueInfoProto) -> None:
        """Add a tensor of the main graph to the model's outputs, after all others."""
        self.graph.outputs.append(tensor)
        self._types.setdefault(id(self.graph), []).append(info)

    def export(self, *, without: Collection[str] = ()) -> onnx.ModelProto:
        """The model as it is now: original protos verbatim, plus what is new.

        Weights are copied once, into the result.

        Args:
            without: Names of dense initializers of the main graph, and of new constants there, to
                be left out. (A proto does not give back what is deleted from it.)
        """
        model = onnx.ModelProto()
        copy_fields(self._proto, model, skip=("graph",))
        if self._proto.HasField("graph"):
            self._export_graph(self.graph, model.graph, frozenset(), without)
        return model

    def constants(self) -> set[str]:
        """Names of the main graph's initializers, those of the model and new ones."""
        new = {t.name for n in self.graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
        return self.initializers | new

    def _export_graph(
        self,
        graph: gs.Graph,
        into: onnx.GraphProto,
        outer: frozenset[str],
        without: Collection[str] = (),
    ) -> None:
        body = self._bodies[id(graph)][1]
        into.SetInParent()
        copy_fields(body, into, skip=("node", "output", "initializer"))
        into.initializer.extend(t for t in body.initializer if t.name not in without)
        declared = {info.name: info for info in (*self._types.get(id(graph), ()), *body.output)}
        for tensor in graph.outputs:
            info = declared.get(tensor.name, onnx.ValueInfoProto(name=tensor.name))
            into.output.add().CopyFrom(info)
        new_outputs = {tensor.name for tensor in graph.outputs}
        for info in self._types.get(id(graph), ()):
            if info.name not in new_outputs:
                into.value_info.add().CopyFrom(info)
        known = {*outer, *without}
        for node in graph.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant) and tensor.name not in known:
                    known.add(tensor.name)
                    self._export_constant(tensor, into)
            self._export_node(node, into, frozenset(known))

    def _export_constant(self, tensor: gs.Constant, into: onnx.GraphProto) -> None:
        proto = OnnxExporter.export_tensor_proto(tensor)
        if self._proto.ir_version >= _FREE_INITIALIZERS:
            into.initializer.append(proto)
        else:
            into.node.append(
                onnx.helper.make_node(
                    "Constant", [], [tensor.name], name=self.fresh_node(tensor.name), value=proto
                )
            )

    def _export_node(self, node: gs.Node, into: onnx.GraphProto, known: frozenset[str]) -> None:
        if id(node) not in self._origins:
            self._export_new(node, into, known)
            return
        origin = self._origins[id(node)][1]
        new = into.node.add()
        copy_fields(origin, new, skip=("input", "output", "attribute", "name"))
        if origin.HasField("name") or node.name:
            new.name = node.name
        new.input.extend(tensor.name for tensor in node.inputs)
        new.output.extend(tensor.name for tensor in node.outputs)
        for attribute in origin.attribute:
            value = node.attrs.get(attribute.name)
            if isinstance(value, gs.Graph):
                slot = new.attribute.add()
                copy_fields(attribute, slot, skip=("g",))
                self._export_graph(value, slot.g, known)
            elif value is not None:
                new.attribute.extend(OnnxExporter.export_attributes({attribute.name: value}))
            else:
                new.attribute.add().CopyFrom(attribute)
        present = {attribute.name for attribute in origin.attribute}
        added = {name: value for name, value in node.attrs.items() if name not in present}
        new.attribute.extend(OnnxExporter.export_attributes(added))

    def _export_new(self, node: gs.Node, into: onnx.GraphProto, known: frozenset[str]) -> None:
        graphs = {name: v for name, v in node.attrs.items() if isinstance(v, gs.Graph)}
        if not graphs:
            into.node.append(OnnxExporter.export_node(node))
            return
        new = into.node.add(op_type=node.op, name=node.name)
        new.input.extend(tensor.name for tensor in node.inputs)
        new.output.extend(tensor.name for tensor in node.outputs)
        for name, graph in graphs.items():
            slot = new.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            self._export_graph(graph, slot.g, known)


def captures(node: gs.Node) -> list[str]:
    """Names of the outer tensors that a node's subgraphs read, each once, in order."""
    names: dict[str, None] = {}
    for subgraph in node.subgraphs():
        own = _defined(subgraph)
        for inner in subgraph.nodes:
            for name in (*(t.name for t in inner.inputs if not t.is_empty()), *captures(inner)):
                if name not in own:
                    names[name] = None
        names.update({t.name: None for t in subgraph.outputs if t.name not in own})
    return list(names)


def _defined(graph: gs.Graph) -> set[str]:
    names = {tensor.name for tensor in graph.inputs}
    names.update(t.name for node in graph.nodes for t in node.outputs if not t.is_empty())
    return names


def _copied(tensor: gs.Tensor, read: Mapping[str, gs.Tensor]) -> gs.Tensor:
    return gs.Variable.empty() if tensor.is_empty() else read.get(tensor.name, tensor)


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
