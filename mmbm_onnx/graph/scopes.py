"""What can be seen from inside a graph: its own tensors and those of the graphs around it.

Sibling subgraphs (the branches of an If) may use the same names for different tensors, so names
are looked up from the innermost graph outwards and nowhere else.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import onnx

from mmbm_onnx.graph.axes import Layout, Size, sizes
from mmbm_onnx.graph.inference import KEPT, is_uniform
from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.graph.walk import (
    STANDARD_DOMAINS,
    attribute,
    constant_values,
    inner_graphs,
    inner_scope,
    producers,
    value_types,
)

_NO_NUMBERS = (
    onnx.TensorProto.STRING,
    onnx.TensorProto.COMPLEX64,
    onnx.TensorProto.COMPLEX128,
)


# Give a constant another shape.
_SPREADS = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class Scope:
    """One graph or subgraph and what is visible in it, by tensor name.

    Attributes:
        graph: The graph itself.
        name: Its scope (see ``types.Site.scope``), "" for the main graph.
        runs_once: Whether its nodes run at most once per run of the model: false inside the
            bodies of Loop, Scan and SequenceMap, and of operators that are not known.
        types: Types, inferred or declared.
        values: Values of initializers and Constants.
        producers: Nodes that produce tensors.
        consumers: For every tensor, the nodes of this graph that read it.
        fixed: Tensors that depend on no input of the model (used as a set).
        layouts: What the axes of tensors are made of (filled by ``channels.follow``).
        batch: Symbol of the model's batch axis, or None.
    """

    graph: onnx.GraphProto
    name: str
    runs_once: bool
    types: ChainMap[str, onnx.TypeProto]
    values: ChainMap[str, onnx.TensorProto]
    producers: ChainMap[str, onnx.NodeProto]
    consumers: dict[str, list[onnx.NodeProto]]
    fixed: ChainMap[str, bool] = field(default_factory=ChainMap)
    layouts: ChainMap[str, Layout] = field(default_factory=ChainMap)
    batch: str | None = None

    def inner(self, node: onnx.NodeProto) -> Iterator[Scope]:
        """The scopes of a node's subgraphs."""
        once = node.op_type == "If" and node.domain in STANDARD_DOMAINS
        for name, graph in inner_graphs(node):
            yield Scope(
                graph=graph,
                name=inner_scope(self.name, node, name),
                runs_once=self.runs_once and once,
                types=self.types.new_child(value_types(graph)),
                values=self.values.new_child(constant_values(graph)),
                producers=self.producers.new_child(producers(graph)),
                consumers=_consumers(graph),
                fixed=self.fixed.new_child(),
                layouts=self.layouts.new_child(),
                batch=self.batch,
            )

    def sizes(self, name: str) -> tuple[Size, ...] | None:
        """Lengths of a tensor's axes, None when its rank is unknown."""
        return sizes(self.types.get(name))

    def is_fixed(self, name: str) -> bool:
        """Whether a tensor depends on no input of the model."""
        return name in self.values or name in self.fixed

    def integers(self, node: onnx.NodeProto, name: str, place: int) -> list[int] | None:
        """An argument that is an attribute in old operator sets and an input in new ones; None
        when it is left out or not a constant."""
        found = attribute(node, name)
        if found is not None:
            return [int(number) for number in found]
        given = node.input[place] if place < len(node.input) else ""
        if given not in self.values or prod(self.values[given].dims) > KEPT:
            return None
        return [int(number) for number in to_array(self.values[given]).reshape(-1)]

    def value_behind(self, name: str) -> onnx.TensorProto | None:
        """The constant that a name stands for, through Identity and Cast, or None."""
        while name not in self.values:
            node = self.producers.get(name)
            if node is None or not _changes_nothing(node):
                return None
            name = node.input[0]
        return self.values[name]

    def number(self, name: str) -> float | None:
        """The one number that a name stands for, None for anything else."""
        tensor = self.value_behind(name)
        # Looked at last: inference leaves large tensors without values.
        if tensor is None or tensor.data_type in _NO_NUMBERS or prod(tensor.dims) != 1:
            return None
        return float(to_array(tensor).reshape(-1)[0])

    def filled(self, name: str) -> float | None:
        """The one number that a constant of any shape is filled with, None for anything else."""
        while name not in self.values:
            node = self.producers.get(name)
            if node is None or node.domain not in STANDARD_DOMAINS:
                return None
            if node.op_type == "ConstantOfShape":
                value = attribute(node, "value")
                return 0.0 if value is None else float(to_array(value).reshape(-1)[0])
            if not _changes_nothing(node) and node.op_type not in _SPREADS:
                return None
            name = node.input[0]
        tensor = self.values[name]
        if tensor.data_type in _NO_NUMBERS or not is_uniform(tensor):
            return None
        return float(to_array(tensor).reshape(-1)[0])

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes of this graph that read a tensor, looking through Identity and Cast."""
        found: list[onnx.NodeProto] = []
        stack = [name]
        while stack:
            for node in self.consumers.get(stack.pop(), ()):
                if _changes_nothing(node):
                    stack.extend(node.output)
                else:
                    found.append(node)
        return found

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a tensor, looking through Identity and Cast, or None."""
        node = self.producers.get(name)
        while node is not None and _changes_nothing(node):
            node = self.producers.get(node.input[0])
        return node


def outermost(proto: onnx.ModelProto) -> Scope:
    """The scope of the main graph of a model with inferred types (``inference.infer``)."""
    graph = proto.graph
    values = constant_values(graph)
    types = value_types(graph)
    symbols = [
        lengths[0]
        for info in graph.input
        if info.name not in values and (lengths := sizes(info.type))
    ]
    return Scope(
        graph=graph,
        name="",
        runs_once=True,
        types=ChainMap(types),
        values=ChainMap(values),
        producers=ChainMap(producers(graph)),
        consumers=_consumers(graph),
        batch=symbols[0] if symbols and isinstance(symbols[0], str) else None,
    )


def _changes_nothing(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Identity", "Cast", "CastLike") and node.domain in STANDARD_DOMAINS


def _consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in {*node.input} - {""}:
            found.setdefault(name, []).append(node)
    return found
