"""Quantized models: their activations are integers, which no bound can be learned on."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from mmbm_onnx.graph.walk import ancestors, graphs, inner_graphs

_OF_ACTIVATIONS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "QGemm",
        "QLinearAdd",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


def quantizing_node(proto: onnx.ModelProto, logits: str) -> onnx.NodeProto | None:
    """A node on the way to the logits that rounds activations to integers, or None.

    Rounding has no gradient. (DequantizeLinear alone is of weights, which are constants.)

    Args:
        proto: A checked model.
        logits: Name of the logits.
    """
    needed = ancestors(proto.graph, [logits])
    fed = {info.name for info in proto.graph.input}
    fed -= {tensor.name for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if needed.isdisjoint(node.output):
            continue
        if node.op_type in _OF_ACTIVATIONS and fed & ancestors(proto.graph, node.input[:1]):
            return node
        for inner in _nodes_inside(node):
            if inner.op_type in _OF_ACTIVATIONS:
                return inner
    return None


def _nodes_inside(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a node's subgraphs, at any depth."""
    tops = [top for _, top in inner_graphs(node)]
    return (inner for top in tops for _, graph in graphs(top) for inner in graph.node)
