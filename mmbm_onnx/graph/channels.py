"""Which axis of an activation holds its channels.

The axis follows from what computes the activation: Conv and its kin put channels on axis 1, MatMul
and LayerNormalization on the last one, Transpose moves them. The layout alone cannot tell: a
model with NHWC input has both kinds of activation inside.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from mmbm_onnx.graph.walk import attribute, shape_of

_AXIS_ONE = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "MaxPool",
        "QLinearConv",
        "SpaceToDepth",
    }
)
_LAST_AXIS = frozenset({"Gemm", "LayerNormalization", "MatMul", "RMSNormalization"})
_PASS_THROUGH = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Max",
        "Min",
        "Mul",
        "PRelu",
        "Pad",
        "QuantizeLinear",
        "Relu",
        "Resize",
        "Sigmoid",
        "Sub",
        "Sum",
        "Tanh",
        "Upsample",
        "Where",
    }
)


def channel_axis(
    tensor: str,
    rank: int | None,
    producers: Mapping[str, onnx.NodeProto],
    types: Mapping[str, onnx.TypeProto],
) -> int | None:
    """Axis of the channels of ``tensor``, counted from 0, or None when it cannot be told.

    Args:
        tensor: Name of an activation.
        rank: Its number of axes.
        producers: Tensor name to producing node, outer scopes included.
        types: Tensor name to inferred type.
    """
    if rank is None or rank < 2:
        return None
    if rank == 2:
        return 1
    return _trace(tensor, rank, producers, types, depth=0)


def _trace(
    tensor: str,
    rank: int,
    producers: Mapping[str, onnx.NodeProto],
    types: Mapping[str, onnx.TypeProto],
    depth: int,
) -> int | None:
    node = producers.get(tensor)
    if node is None or depth > 64:
        return None
    op = node.op_type
    if op in _AXIS_ONE:
        return 1
    if op in _LAST_AXIS:
        return rank - 1
    if op == "Transpose":
        perm = list(attribute(node, "perm", [])) or list(reversed(range(rank)))
        before = _trace(node.input[0], rank, producers, types, depth + 1)
        return None if before is None or before not in perm else perm.index(before) or None
    if op in ("Concat", "Split"):
        return _trace(node.input[0], rank, producers, types, depth + 1)
    if op in _PASS_THROUGH:
        for name in node.input:
            shape = shape_of(types.get(name))
            if name in producers and (shape is None or len(shape) == rank):
                found = _trace(name, rank, producers, types, depth + 1)
                if found is not None:
                    return found
    return None
