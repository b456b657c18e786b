"""Quantized models: their activations are integers, which no bound can be learned on."""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.walk import ancestors, graphs

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
    for _, graph in graphs(proto.graph):
        for node in graph.node:
            inside = graph is not proto.graph or not needed.isdisjoint(node.output)
            if node.op_type in _OF_ACTIVATIONS and inside:
                return node
    return None
