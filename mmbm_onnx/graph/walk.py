"""Small walks over ONNX protos that the rooms share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

STANDARD_DOMAINS = ("", "ai.onnx")
RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Of operators that ONNX Runtime puts in the place of others when it optimizes a file."""
UNOPTIMIZED = "start from the file as it was before ONNX Runtime optimized it"
FLOATS = (
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)


def graphs(graph: onnx.GraphProto, scope: str = "") -> Iterator[tuple[str, onnx.GraphProto]]:
    """``graph`` and every subgraph below it, each with its scope (see ``types.Site.scope``)."""
    yield scope, graph
    for node in graph.node:
        for entry, subgraph in inner_graphs(node):
            yield from graphs(subgraph, inner_scope(scope, node, entry))


def all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph, the bodies of local functions (their nodes alone), and every subgraph."""
    bodies = (onnx.GraphProto(node=function.node) for function in proto.functions)
    for top in (proto.graph, *bodies):
        yield from (graph for _, graph in graphs(top))


def inner_graphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The subgraphs that a node holds, each with the name of its attribute."""
    for entry in node.attribute:
        for subgraph in subgraphs(entry):
            yield entry.name, subgraph


def inner_scope(scope: str, node: onnx.NodeProto, attribute_name: str) -> str:
    """Scope of a subgraph of ``node``, which itself lives in ``scope``."""
    label = f"{node.name or node.op_type}/{attribute_name}"
    return f"{scope}/{label}" if scope else label


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The graphs an attribute holds, none for most."""
    if attribute.type == onnx.AttributeProto.GRAPH:
        return [attribute.g]
    if attribute.type == onnx.AttributeProto.GRAPHS:
        return list(attribute.graphs)
    return []


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every TensorProto in the model: initializers and attributes, of subgraphs, functions and
    training graphs too, the two halves of sparse tensors included."""
    yield from _graph_tensors(proto.graph)
    for training in proto.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in proto.functions:
        yield from _attribute_tensors(function.attribute_proto)
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(
    attributes: Iterable[onnx.AttributeProto],
) -> Iterator[onnx.TensorProto]:
    for entry in attributes:
        if entry.HasField("t"):
            yield entry.t
        yield from entry.tensors
        for sparse in (entry.sparse_tensor, *entry.sparse_tensors):
            yield from (part for part in (sparse.values, sparse.indices) if part.ByteSize())
        for graph in (entry.g, *entry.graphs):
            yield from _graph_tensors(graph)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Python value of a node's attribute, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Tensor name to the node of this graph (not its subgraphs) that produces it."""
    return {name: node for node in graph.node for name in node.output if name}


def constant_values(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Tensors of known value in this graph: its initializers and the outputs of its Constants.

    An initializer that is also a graph input could be replaced at run time; it counts as known
    all the same, since in IR 3 every weight is such an input.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
            for entry in node.attribute:
                if entry.name == "value":
                    values[node.output[0]] = entry.t
                elif entry.name in ("value_float", "value_int", "value_floats", "value_ints"):
                    array = np.asarray(
                        onnx.helper.get_attribute_value(entry),
                        dtype=np.float32 if "float" in entry.name else np.int64,
                    )
                    values[node.output[0]] = numpy_helper.from_array(array, node.output[0])
    return values


def standard_opset(opset_imports: Iterable[onnx.OperatorSetIdProto]) -> int | None:
    """Version of the standard operator set that is imported, or None."""
    for entry in opset_imports:
        if entry.domain in STANDARD_DOMAINS:
            return int(entry.version)
    return None


def value_types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Declared types of this graph's inputs, outputs and inner values, initializers included."""
    types = {info.name: info.type for info in (*graph.input, *graph.output, *graph.value_info)}
    for tensor in graph.initializer:
        types.setdefault(
            tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        )
    return types


def shape_of(kind: onnx.TypeProto | None) -> tuple[int | None, ...] | None:
    """Shape in a type: None for an axis of any length; None for the whole when it is unknown.

    Zero and negative lengths, which some exporters write for "any", count as any length.
    """
    if kind is None or not kind.HasField("tensor_type"):
        return None
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in kind.tensor_type.shape.dim
    )


def ancestors(graph: onnx.GraphProto, targets: Iterable[str]) -> set[str]:
    """Names of every tensor that ``targets`` depend on, themselves included; names that a
    subgraph captures count as inputs of the node that holds it."""
    made_by = producers(graph)
    seen: set[str] = set()
    stack = [name for name in targets if name]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        node = made_by.get(name)
        if node is not None:
            stack.extend(used for used in consumed(node) if used not in seen)
    return seen


def consumed(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, captures of its subgraphs (and what they define) included."""
    names = {name for name in node.input if name}
    for entry in node.attribute:
        for top in subgraphs(entry):
            for _, graph in graphs(top):
                for inner in graph.node:
                    names.update(name for name in (*inner.input, *inner.output) if name)
                names.update(info.name for info in graph.output)
    return names
