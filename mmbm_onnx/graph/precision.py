"""Whether a model computes in half precision somewhere."""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.walk import all_graphs, tensors

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def has_halves(proto: onnx.ModelProto) -> bool:
    """Whether an input, a tensor it holds or a Cast, wherever it is, is float16 or bfloat16."""
    if any(tensor.data_type in _HALVES for tensor in tensors(proto)):
        return True
    if any(value.type.tensor_type.elem_type in _HALVES for value in proto.graph.input):
        return True
    return any(
        attribute.name == "to" and attribute.i in _HALVES
        for graph in all_graphs(proto)
        for node in graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )
