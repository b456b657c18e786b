"""The weights of a node, with factors worked into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.graph.walk import attribute
from mmbm_onnx.rewriting.folding.walk import Graph

Factor = npt.NDArray[np.float64]
Weight = npt.NDArray[np.float32]


def scaled_weights(
    graph: Graph, node: onnx.NodeProto, incoming: Factor, outgoing: Factor
) -> dict[int, Weight]:
    """New values of a node's constant inputs, by their place among its inputs.

    Args:
        graph: Where they are.
        node: A Conv, ConvTranspose, MatMul, Gemm or BatchNormalization, as ``rules`` takes it.
        incoming: What every channel that it reads is smaller by, ``(n,)`` or ``()``.
        outgoing: What every channel that it makes is to be smaller by, ``(m,)``.
    """
    if node.op_type == "BatchNormalization":
        scale, bias, mean = (_wide(graph, name) for name in node.input[1:4])
        new = {1: scale * incoming / outgoing, 2: bias / outgoing, 3: mean / incoming}
        return {place: flushed(values) for place, values in new.items()}
    weight = graph.values(node.input[1])
    assert weight is not None
    weights = {1: _weight(node, np.asarray(weight, np.float32), incoming, outgoing)}
    if len(node.input) > 2 and node.input[2]:
        weights[2] = flushed(_wide(graph, node.input[2]) / outgoing)
    return weights


def as_depthwise(
    graph: Graph, node: onnx.NodeProto, incoming: Factor, outgoing: Factor
) -> tuple[Weight, Weight]:
    """Weight ``(c, 1, 1, 1)`` and bias ``(c,)`` of the depthwise convolution that does what a
    BatchNormalization does, with factors as for ``scaled_weights``."""
    scale, bias, mean, variance = (_wide(graph, name) for name in node.input[1:5])
    slope = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    weight = slope * incoming / outgoing
    return flushed(weight).reshape(-1, 1, 1, 1), flushed((bias - mean * slope) / outgoing)


def _wide(graph: Graph, name: str) -> Factor:
    values = graph.values(name)
    assert values is not None
    return np.asarray(flushed(values), np.float64)


def _weight(node: onnx.NodeProto, weight: Weight, incoming: Factor, outgoing: Factor) -> Weight:
    """In float32 throughout: weights may be many, and one copy is enough."""
    read, made = _laid_out(node, weight.shape, incoming, outgoing)
    new = flushed(weight)
    for factor in (read, 1 / made):
        new *= factor.astype(np.float32)
        new = flushed(new)
    return new


def flushed(values: npt.NDArray[Any]) -> Weight:
    """A copy in float32 with 0 for what is too small for a normal number.

    Processors may do that by themselves, or not, as the libraries of a process have set them; what
    is written is to be the same in all.
    """
    with np.errstate(under="ignore"):
        narrow = np.asarray(values, np.float32)
    return np.where(np.abs(narrow) < np.finfo(np.float32).tiny, np.float32(0), narrow)


def _laid_out(
    node: onnx.NodeProto, shape: tuple[int, ...], incoming: Factor, outgoing: Factor
) -> tuple[Factor, Factor]:
    """Both factors, in shapes that broadcast against the weight's."""
    if node.op_type in ("MatMul", "Gemm"):
        if attribute(node, "transB", 0):
            return incoming.reshape(1, -1), outgoing.reshape(-1, 1)
        return incoming.reshape(-1, 1), outgoing.reshape(1, -1)
    first, second = shape[:2]
    rest = (1,) * (len(shape) - 2)
    groups = attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":  # (read, made / groups, ...)
        made = outgoing.reshape(groups, second).repeat(first // groups, axis=0)
        return incoming.reshape(-1, 1, *rest), made.reshape(first, second, *rest)
    # (made, read / groups, ...)
    of_group = np.broadcast_to(incoming, (groups * second,)).reshape(groups, second)
    read = of_group.repeat(first // groups, axis=0)
    return read.reshape(first, second, *rest), outgoing.reshape(-1, 1, *rest)
