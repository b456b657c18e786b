"""Where a network of integers becomes differentiable: behind the embedding of its input."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.walk import FLOATS, STANDARD_DOMAINS, consumed

_INTEGERS = (
    onnx.TensorProto.INT8,
    onnx.TensorProto.INT16,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT8,
)
_TABLES = ("Gather", "GatherND", "OneHot", "TfIdfVectorizer")
_NUMBERS = ("Cast", "CastLike", "DequantizeLinear")
# They tell how long something is, not what it is.
_LENGTHS = ("Shape", "Size")


def takes_integers(element: int) -> bool:
    """Whether an ONNX element type is one of the integers that samples may be."""
    return element in _INTEGERS


def find_start(
    graph: onnx.GraphProto,
    source: str,
    logits: str,
    types: Mapping[str, onnx.TypeProto],
    label: str,
) -> tuple[str, bool]:
    """The tensor that stands for an integer input from where gradients flow.

    It is the result of the operator that turns the integers into floating-point values: a look-up
    in a table (Gather, OneHot), failing that a Cast. Where there are several, it is the first
    tensor that all their ways to the logits lead through. What else the integers decide, such as a
    mask, is no part of it.

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
    last = {name: position for position, node in enumerate(graph.node) for name in node.output}
    nodes = list(graph.node)[: last.get(logits, -1) + 1]
    found = _embeddings(nodes, source, types)
    starts = _leading_to(nodes, found[0], logits)
    tokens = bool(starts)
    starts = starts or _leading_to(nodes, found[1], logits)
    if not starts:
        raise ModelError(
            f"{label}: the integers of input {source!r} reach the logits by no look-up or Cast to "
            "floating point in the main graph, so there is nothing that an attack could change in "
            "small steps (one inside a Loop or a local function does not count); give the "
            "embedded values as the input"
        )
    if len(starts) == 1:
        return starts[0], tokens
    for node in nodes:
        for name in node.output:
            if name in ("", logits) or not _is_float(name, types):
                continue
            if _parts(nodes, starts, name, logits):
                return name, tokens
    raise ModelError(
        f"{label}: the integers of input {source!r} are embedded {len(starts)} times "
        f"({', '.join(starts[:3])}) and the results never come together before the logits; give "
        "the embedded values as the input"
    )


def _embeddings(
    nodes: list[onnx.NodeProto], source: str, types: Mapping[str, onnx.TypeProto]
) -> tuple[list[str], list[str]]:
    """Results of look-ups by the input's integers, and of their Casts to floating point."""
    integers = {source}
    tables, numbers = [], []
    for node in nodes:
        if integers.isdisjoint(node.input) or node.op_type in _LENGTHS:
            continue
        for name in node.output:
            if _is_float(name, types):
                if node.op_type in _NUMBERS:
                    numbers.append(name)
                elif node.op_type in _TABLES or node.domain not in STANDARD_DOMAINS:
                    tables.append(name)
            elif _is_integer(name, types):
                integers.add(name)
    return tables, numbers


def _leading_to(nodes: list[onnx.NodeProto], names: list[str], logits: str) -> list[str]:
    return [name for name in names if logits in _descendants(nodes, {name}, without=None)]


def _parts(nodes: list[onnx.NodeProto], starts: list[str], name: str, logits: str) -> bool:
    """Whether a tensor follows from all starts and is on every way from them to the logits."""
    if logits in _descendants(nodes, set(starts), without=name):
        return False
    return all(name in _descendants(nodes, {start}, without=None) for start in starts)


def _descendants(nodes: list[onnx.NodeProto], starts: set[str], without: str | None) -> set[str]:
    """What is computed from tensors, themselves included, though not by way of one."""
    found = starts - {without}
    for node in nodes:
        if not found.isdisjoint(consumed(node)):
            found.update(name for name in node.output if name and name != without)
    return found


def _is_float(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    return name in types and types[name].tensor_type.elem_type in FLOATS


def _is_integer(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    element = types[name].tensor_type.elem_type if name in types else None
    return element in (*_INTEGERS, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64)
