"""Is a written graph the original and nothing else? Weights, nodes and functions, one by one.

Samples cannot tell: a few changed weights may hide another trigger. So a hardened graph must be
the original's, node for node, once its bounds are taken out again.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from mmbm_onnx.graph.mapped import is_mapped, same_bytes, to_array
from mmbm_onnx.graph.walk import constant_values, inner_graphs, producers


def changed_weight(original: onnx.ModelProto, written: onnx.ModelProto) -> str:
    """Why the main graph's initializers are not all in ``written``, bit for bit.

    Args:
        original: The model as it was, activation functions inlined.
        written: The hardened or the detector graph.

    Returns:
        One line on the first that differs, or nothing.
    """
    found = {tensor.name: tensor for tensor in written.graph.initializer}
    for tensor in original.graph.initializer:
        if tensor.name not in found:
            return f"weight {tensor.name!r} of the original is missing"
        if not _same_tensor(tensor, found[tensor.name]):
            return f"weight {tensor.name!r} is not the original's"
    return ""


def changed_node(
    original: onnx.ModelProto, hardened: onnx.ModelProto, sites: frozenset[str]
) -> str:
    """Why ``hardened`` is not the original with constant upper bounds on ``sites``.

    Names of nodes do not count.

    Args:
        original: The model as it was, activation functions inlined.
        hardened: The model with bounds.
        sites: Tensors of the original that may carry a bound.

    Returns:
        One line on the first difference, or nothing.
    """
    if [_bytes(entry) for entry in original.functions] != [
        _bytes(entry) for entry in hardened.functions
    ]:
        return "its local functions are not the original's"
    return _difference(original.graph, hardened.graph, sites)


def _difference(original: onnx.GraphProto, hardened: onnx.GraphProto, sites: frozenset[str]) -> str:
    restored = _without_bounds(original, hardened, sites)
    for old, new in zip(original.node, restored, strict=False):
        name = next((output for output in old.output if output), old.name)
        if _head(old) != _head(new):
            return f"the node that computes {name!r} is not the original's"
        for (_, inside), (_, other) in zip(inner_graphs(old), inner_graphs(new), strict=True):
            if _frame(inside, bounds=not sites) != _frame(other, bounds=not sites):
                return f"a subgraph of the node that computes {name!r} is not the original's"
            if found := _difference(inside, other, sites):
                return found
    if len(restored) != len(original.node):
        return f"{len(restored)} nodes without its bounds, the original has {len(original.node)}"
    return ""


def _without_bounds(
    original: onnx.GraphProto, hardened: onnx.GraphProto, sites: frozenset[str]
) -> list[onnx.NodeProto]:
    """The hardened graph's nodes as they were before the bounds (not those of subgraphs)."""
    nodes = []
    for node in hardened.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
    before = producers(original)
    after = {name: node for node in nodes for name in node.output if name}
    constants = constant_values(hardened).keys()
    removed: list[onnx.NodeProto] = []
    for tensor in sites & before.keys() & after.keys():
        old, node = before[tensor], after[tensor]
        if old.op_type == node.op_type == "Clip" and old.input[:2] == node.input[:2]:
            if node.input[2:3] and node.input[2] not in constants:
                continue
            _restore_limit(old, node)
            continue
        source = after.get(node.input[0]) if node.input else None
        if source is not None and _is_bound(node, constants):
            index = list(source.output).index(node.input[0])
            source.output[index] = tensor
            removed.append(node)
    kept = [node for node in nodes if not any(node is other for other in removed)]
    # Where initializers are inputs as well (IR 3), bounds are Constant nodes.
    bounds = {name for node in removed for name in node.input[1:]}
    return [
        node
        for node in kept
        if not (node.op_type == "Constant" and node.output[0] in bounds - before.keys())
    ]


def _is_bound(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Whether the node is nothing but an upper limit of known value on its first input."""
    attributes = [entry.name for entry in node.attribute]
    if node.op_type == "Min":
        return len(node.input) == 2 and node.input[1] in constants and not attributes
    if node.op_type != "Clip":
        return False
    if len(node.input) == 1:
        return attributes == ["max"]
    return (
        len(node.input) == 3 and not node.input[1] and node.input[2] in constants and not attributes
    )


def _restore_limit(old: onnx.NodeProto, node: onnx.NodeProto) -> None:
    """Give a ReLU6 its own limit back; everything else about it stays to be compared."""
    del node.input[2:]
    node.input.extend(old.input[2:])
    others = [entry for entry in node.attribute if entry.name != "max"]
    limits = [entry for entry in old.attribute if entry.name == "max"]
    entries = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in others]
    del node.attribute[:]
    node.attribute.extend([*entries, *limits])


def _head(node: onnx.NodeProto) -> tuple[object, ...]:
    """What a node is, short of its name and of what its subgraphs hold."""
    return (
        node.op_type,
        node.domain,
        getattr(node, "overload", ""),
        tuple(node.input),
        tuple(node.output),
        tuple(
            sorted(
                (entry.name, b"" if entry.HasField("g") or entry.graphs else _bytes(entry))
                for entry in node.attribute
            )
        ),
    )


def _frame(graph: onnx.GraphProto, *, bounds: bool) -> tuple[object, ...]:
    """What a subgraph is, short of its nodes and, without ``bounds``, of weights that they brought
    with them."""
    weights = sorted(
        _bytes(entry) for entry in graph.initializer if bounds or "/mmbm_bound" not in entry.name
    )
    names = [[info.name for info in infos] for infos in (graph.input, graph.output)]
    return names, weights


def _same_tensor(left: onnx.TensorProto, right: onnx.TensorProto) -> bool:
    if (left.data_type, list(left.dims)) != (right.data_type, list(right.dims)):
        return False
    if is_mapped(left) or is_mapped(right):
        return same_bytes(left, right)
    if left.HasField("raw_data") and right.HasField("raw_data"):
        return left.raw_data == right.raw_data
    first, second = to_array(left), to_array(right)
    if first.dtype == object:
        return bool((first == second).all())
    return first.tobytes() == second.tobytes()


def _bytes(message: onnx.AttributeProto | onnx.TensorProto | onnx.FunctionProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))
