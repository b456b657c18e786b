"""Whether a model computes in half precision somewhere."""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.walk import graphs, tensors

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def has_halves(proto: onnx.ModelProto) -> bool:
    """Whether an input, a tensor it holds or a Cast, wherever it is, is float16 or bfloat16."""
    if any(tensor.data_type in _HALVES for tensor in tensors(proto)):
        return True
    if any(value.type.tensor_type.elem_type in _HALVES for value in proto.graph.input):
        return True
    bodies = [onnx.GraphProto(node=function.node) for function in proto.functions]
    return any(
        attribute.name == "to" and attribute.i in _HALVES
        for top in (proto.graph, *bodies)
        for _, graph in graphs(top)
        for node in graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )
