"""Types of every tensor, inferred from the graph and not believed from the file.

A file may declare types of its inner tensors (``value_info``). After an edit they are often
stale, and ONNX shape inference prefers a declared type to its own result. So inference runs
without them; what the file declares only fills in what could not be inferred.
"""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

from mmbm_onnx.graph.mapped import is_mapped, to_array
from mmbm_onnx.graph.modern import modernise
from mmbm_onnx.graph.walk import graphs, value_types

_TENSOR = (None, "tensor_type")
KEPT = 1024
"""Elements: larger initializers are weights, whose values no shape depends on."""
_FEW = 16
_LOOKED_AT = 1 << 22  # elements: of larger ones nobody asks whether all values are the same


def infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with ``value_info`` filled in, subgraphs too, and large weights emptied
    (but for those that are filled with one number).

    Nodes and their order, inputs, outputs and small constants are the model's. Tensors whose type
    cannot be told have none.

    Args:
        proto: A checked model; not changed.
    """
    declared = _skeleton(proto)
    bare = onnx.ModelProto()
    bare.CopyFrom(declared)
    stated = False
    for _, graph in graphs(bare.graph):
        stated = stated or bool(graph.value_info)
        del graph.value_info[:]
    for info in bare.graph.output:
        if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
            stated = True
            info.type.tensor_type.ClearField("shape")
    inferred = _infer(bare)
    if (modern := modernise(bare)) is not None:
        _complete(inferred, _infer(modern))
    if stated:
        _complete(inferred, _infer(declared))
    _name_axes(inferred.graph, declared.graph)
    return inferred


def _name_axes(graph: onnx.GraphProto, declared: onnx.GraphProto) -> None:
    """Give axes of outputs whose length cannot be told the names that the file has for them."""
    for info, twin in zip(graph.output, declared.output, strict=True):
        dims = info.type.tensor_type.shape.dim
        stated = twin.type.tensor_type.shape.dim
        if len(dims) != len(stated):
            continue
        for dim, other in zip(dims, stated, strict=True):
            if not dim.HasField("dim_value") and _unnamed(dim) and not _unnamed(other):
                dim.dim_param = other.dim_param


def _complete(proto: onnx.ModelProto, other: onnx.ModelProto) -> None:
    for (_, graph), (_, twin) in zip(graphs(proto.graph), graphs(other.graph), strict=True):
        _fill(graph, twin)


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # the declared types remain, and unknown ones are handled where they matter
        return proto


def _skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.value_info.extend(proto.graph.value_info)
    for tensor in proto.graph.initializer:
        uniform = is_uniform(tensor)
        if uniform and is_mapped(tensor):
            graph.initializer.append(numpy_helper.from_array(to_array(tensor), tensor.name))
        elif (uniform or math.prod(tensor.dims) <= KEPT) and not is_mapped(tensor):
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return light


def is_uniform(tensor: onnx.TensorProto) -> bool:
    """Whether all values of a tensor, which are not many, are there and the same."""
    count = math.prod(tensor.dims)
    if not 0 < count <= _LOOKED_AT or tensor.data_type == onnx.TensorProto.STRING:
        return False
    try:
        values = to_array(tensor).reshape(-1)
    except ValueError:  # emptied
        return False
    few = values[:_FEW]
    return bool((few == few[0]).all() and (values == few[0]).all())


def _fill(graph: onnx.GraphProto, declared: onnx.GraphProto) -> None:
    """Complete the inner types of ``graph`` from those declared: whole types and unknown axes."""
    stated = {info.name: info.type for info in (*declared.value_info, *declared.output)}
    for info in (*graph.value_info, *graph.output):  # inference may list an output twice
        if info.name in stated:
            _fill_type(info.type, stated[info.name])
    known = value_types(graph)
    for name in [name for name in stated if name not in known]:
        _forget_symbols(graph.value_info.add(name=name, type=stated[name]).type)


def _fill_type(kind: onnx.TypeProto, declared: onnx.TypeProto) -> None:
    if not declared.HasField("tensor_type") or kind.WhichOneof("value") not in _TENSOR:
        return
    tensor, other = kind.tensor_type, declared.tensor_type
    if not tensor.elem_type:
        tensor.elem_type = other.elem_type
    if not other.HasField("shape"):
        return
    if not tensor.HasField("shape"):
        tensor.shape.CopyFrom(other.shape)
        _forget_symbols(kind)
    elif len(tensor.shape.dim) == len(other.shape.dim):
        for dim, stated in zip(tensor.shape.dim, other.shape.dim, strict=True):
            if not dim.HasField("dim_value") and _unnamed(dim) and stated.HasField("dim_value"):
                dim.dim_value = stated.dim_value


def _forget_symbols(kind: onnx.TypeProto) -> None:
    # Symbols that inference invents are unique within one run only.
    for dim in kind.tensor_type.shape.dim:
        if _unnamed(dim):
            dim.ClearField("dim_param")


def _unnamed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.dim_param or dim.dim_param.startswith("unk__")
