"""Whether what a model file holds is whole: sizes of tensors, and text that is text.

Neither ``onnx.load`` nor the checker compares a tensor's data with its dims; ONNX Runtime would
fail much later, and without naming the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.walk import graphs, tensors

T = onnx.TensorProto

# Bits of one element (onnx.proto, TensorProto.DataType); strings have no fixed size.
_BITS: dict[int, int] = {
    **dict.fromkeys((T.BOOL, T.INT8, T.UINT8), 8),
    **dict.fromkeys((T.INT16, T.UINT16, T.FLOAT16, T.BFLOAT16), 16),
    **dict.fromkeys((T.INT32, T.UINT32, T.FLOAT), 32),
    **dict.fromkeys((T.INT64, T.UINT64, T.DOUBLE, T.COMPLEX64), 64),
    T.COMPLEX128: 128,
    **dict.fromkeys((T.FLOAT8E4M3FN, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2, T.FLOAT8E5M2FNUZ), 8),
    **dict.fromkeys((T.UINT4, T.INT4), 4),
}
# Types of newer onnx releases, by name so that older ones still import this file.
_BITS |= {
    T.DataType.Value(name): bits
    for name, bits in (("FLOAT4E2M1", 4), ("FLOAT8E8M0", 8), ("UINT2", 2), ("INT2", 2))
    if name in T.DataType.keys()  # noqa: SIM118 - an enum wrapper, not a dict
}
# Where elements are kept one by one, and how many entries one element (or byte) takes.
_FIELDS: dict[int, str] = {
    T.FLOAT: "float_data",
    T.COMPLEX64: "float_data",
    T.DOUBLE: "double_data",
    T.COMPLEX128: "double_data",
    T.INT64: "int64_data",
    T.UINT32: "uint64_data",
    T.UINT64: "uint64_data",
    T.STRING: "string_data",
}
_ALL_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def check_tensor_sizes(proto: onnx.ModelProto, label: Path | str) -> None:
    """Check that every tensor in the file holds exactly the data that its dims and type declare.

    Raises:
        ModelError: A tensor has negative dims, an unknown type, or too little or too much data.
    """
    for tensor in tensors(proto):
        if tensor.HasField("segment"):
            raise ModelError(f"{label}: tensor {tensor.name!r} is segmented, which is unsupported")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if tensor.HasField("raw_data") or any(len(getattr(tensor, f)) for f in _ALL_FIELDS):
                raise ModelError(
                    f"{label}: tensor {tensor.name!r} holds data beside its external data; the "
                    "file is damaged"
                )
            continue
        needed = declared_bytes(tensor, label)
        if tensor.HasField("raw_data"):
            held, unit = len(tensor.raw_data), "bytes"
        else:
            needed, unit = _declared_entries(tensor), "values"
            held = sum(len(getattr(tensor, field)) for field in _ALL_FIELDS)
            if len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))) != held:
                raise ModelError(
                    f"{label}: tensor {tensor.name!r} keeps values of another type than its own; "
                    "the file is damaged"
                )
        if held != needed:
            raise ModelError(
                f"{label}: tensor {tensor.name!r} holds {held} {unit}, its type and dims need "
                f"{needed}; the file is damaged"
            )


def declared_bytes(tensor: onnx.TensorProto, label: Path | str) -> int | None:
    """Bytes that a tensor's dims and type need, None for strings.

    Raises:
        ModelError: A dim is negative, or the type is unknown.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{label}: tensor {tensor.name!r} has negative dims; the file is damaged")
    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(
            f"{label}: tensor {tensor.name!r} has an unknown element type {tensor.data_type}"
        )
    return -(-math.prod(tensor.dims) * bits // 8)


def _declared_entries(tensor: onnx.TensorProto) -> int:
    count = math.prod(tensor.dims)
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * count
    bits = _BITS.get(tensor.data_type, 8)
    return -(-count * bits // 8) if bits < 8 else count


def check_text(proto: onnx.ModelProto, label: Path | str) -> None:
    """Check that names are text: protobuf hands out bytes where they are not UTF-8.

    Raises:
        ModelError: A name in the model is not UTF-8.
    """
    for text in _names(proto):
        if not isinstance(text, str):
            raise ModelError(f"{label}: the name {text!r} is not UTF-8 text; the file is damaged")


def _names(proto: onnx.ModelProto) -> Iterator[object]:
    for imported in proto.opset_import:
        yield imported.domain
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    for tensor in tensors(proto):
        yield tensor.name
    for _, graph in graphs(proto.graph):
        yield graph.name
        yield from _node_names(graph.node)
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield info.name
            yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    for function in proto.functions:
        yield from (function.domain, function.name)
        yield from (*function.input, *function.output, *function.attribute)
        body = onnx.GraphProto(node=function.node)
        for _, graph in graphs(body):
            yield from _node_names(graph.node)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for entry in node.attribute:
            yield from (entry.name, entry.ref_attr_name)
