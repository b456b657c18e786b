"""Where a network of integers becomes differentiable: behind the embedding of its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from mmbm_onnx.errors import ModelError, listing
from mmbm_onnx.graph.walk import FLOATS, STANDARD_DOMAINS, ancestors, consumed

INTEGERS = (
    onnx.TensorProto.INT8,
    onnx.TensorProto.INT16,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT8,
)
"""Element types of integers that samples may have."""
_TABLES = ("Gather", "GatherND", "OneHot", "TfIdfVectorizer")
_NUMBERS = ("Cast", "CastLike", "DequantizeLinear")
# What may stand behind a comparison with all values, before its Cast or Where, in a OneHot written
# out.
_MOVES = ("Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# They tell how long something is, not what it is.
_LENGTHS = ("Shape", "Size")


def find_start(
    graph: onnx.GraphProto,
    source: str,
    logits: str,
    types: Mapping[str, onnx.TypeProto],
    label: str,
) -> tuple[str, bool]:
    """The tensor that stands for an integer input from where gradients flow.

    It is the result of the operator that turns the integers into floating-point values: a look-up
    in a table (Gather, OneHot, or OneHot written out as Equal and Cast or Where), failing that a
    Cast. Where there are several, it is the first tensor that all their ways to the logits
    lead through. What else the integers decide, such as a mask, is no part of it.

    Args:
        graph: A checked graph.
        source: Its integer input.
        logits: Tensor whose gradient is looked for.
        types: Of the graph's tensors, by name, as far as known.
        label: What messages call the model.

    Returns:
        The tensor's name, and whether it comes of a look-up.

    Raises:
        ModelError: There is no such tensor.
    """
    leading = ancestors(graph, [logits])
    tables, numbers = _embeddings(graph, source, types)
    starts = [name for name in tables if name in leading]
    tokens = bool(starts)
    starts = starts or [name for name in numbers if name in leading]
    if not starts:
        raise ModelError(
            f"{label}: the integers of input {source!r} reach the logits by no look-up or Cast to "
            "floating point in the main graph, so there is nothing that an attack could change in "
            "small steps (one inside a Loop or a local function does not count); give the "
            "embedded values as the input"
        )
    if len(starts) == 1:
        return starts[0], tokens
    for name in _cuts(graph, set(starts), leading):
        if name != logits and _is_float(name, types):
            return name, tokens
    raise ModelError(
        f"{label}: the integers of input {source!r} are embedded {len(starts)} times "
        f"({listing(starts, 3)}) and the results never come together before the logits; give "
        "the embedded values as the input"
    )


def _embeddings(
    graph: onnx.GraphProto, source: str, types: Mapping[str, onnx.TypeProto]
) -> tuple[list[str], list[str]]:
    """Results of look-ups by the input's integers, and of their Casts to floating point."""
    integers = {source}
    hits: set[str] = set()  # where integers are one of several values
    tables, numbers = [], []
    given = {info.name for info in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if (node.op_type in (*_MOVES, *_NUMBERS) and node.input[0] in hits) or (
            node.op_type == "Where"
            and node.input[0] in hits
            and given.isdisjoint(ancestors(graph, node.input[1:]))
        ):
            if _is_float(node.output[0], types):
                tables.append(node.output[0])
            else:
                hits.add(node.output[0])
            continue
        if integers.isdisjoint(node.input) or node.op_type in _LENGTHS:
            continue
        if node.op_type == "Equal" and any(
            name not in integers and _holds_several(name, types) for name in node.input
        ):
            hits.add(node.output[0])
        for name in node.output:
            if _is_float(name, types):
                if node.op_type in _NUMBERS:
                    numbers.append(name)
                elif node.op_type in _TABLES or node.domain not in STANDARD_DOMAINS:
                    tables.append(name)
            elif _is_integer(name, types):
                integers.add(name)
    return tables, numbers


def _cuts(graph: onnx.GraphProto, starts: set[str], leading: set[str]) -> Iterator[str]:
    """The tensors that every way from the starts on leads through, among those that lead to the
    logits, in order: when one is made, nothing else that follows from a start is still to be read.
    """
    nodes = [node for node in graph.node if not leading.isdisjoint(node.output)]
    uses = [consumed(node) for node in nodes]
    read_last = {name: place for place, names in enumerate(uses) for name in names}
    following: set[str] = set()
    open_until = -1
    for place, node in enumerate(nodes):
        if uses[place].isdisjoint(following) and starts.isdisjoint(node.output):
            continue
        ends = {name: read_last.get(name, -1) for name in node.output if name in leading}
        following.update(ends)
        for name in ends:
            beside = max((end for other, end in ends.items() if other != name), default=-1)
            if starts <= following and max(open_until, beside) <= place:
                yield name
        open_until = max(open_until, *ends.values())


def _holds_several(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    """Whether a tensor may hold more than one value."""
    if name not in types or not types[name].tensor_type.HasField("shape"):
        return True
    axes = types[name].tensor_type.shape.dim
    return any(not axis.HasField("dim_value") or axis.dim_value > 1 for axis in axes)


def _is_float(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    return name in types and types[name].tensor_type.elem_type in FLOATS


def _is_integer(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    element = types[name].tensor_type.elem_type if name in types else None
    return element in (*INTEGERS, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64)
