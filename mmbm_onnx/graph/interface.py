"""How a classifier is fed and read: its input, its logits, its batch axis."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from mmbm_onnx.errors import ModelError, OptionError
from mmbm_onnx.graph.walk import (
    STANDARD_DOMAINS,
    ancestors,
    attribute,
    producers,
    shape_of,
    value_types,
)
from mmbm_onnx.types import Head, Interface

_FLOATS = {
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}


def find_interface(
    proto: onnx.ModelProto,
    *,
    input_name: str | None = None,
    logits_name: str | None = None,
    label: str = "model",
) -> Interface:
    """Find the one floating-point input with a batch axis and the tensor that holds the logits.

    The logits are looked for behind a final Softmax or LogSoftmax over the classes, since a
    margin is measured before them (``DESIGN``: margin).

    Args:
        proto: A checked model; not changed.
        input_name: Graph input to use when there are several.
        logits_name: Tensor that holds the logits, any in the graph, when it cannot be found.
        label: What messages call the model.

    Raises:
        ModelError: The model is not a classifier this tool can take: several inputs, an integer
            input, no batch axis, no output of shape (batch, classes), fewer than two classes.
        OptionError: A name does not exist, or several outputs qualify and none was named.
    """
    types = _types(proto)
    source = _find_input(proto, input_name, label)
    kind = source.type.tensor_type
    if kind.elem_type not in _FLOATS:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise ModelError(
            f"{label}: input {source.name!r} is {name}; only floating-point inputs are supported"
        )
    shape = shape_of(source.type)
    if shape is None or len(shape) < 2:
        raise ModelError(f"{label}: input {source.name!r} has no batch axis (shape {shape})")

    if logits_name is None:
        output, logits, head = _find_logits(proto, types, label)
    else:
        output, logits, head = _named_logits(proto, types, logits_name, label)
    if source.name not in ancestors(proto.graph, [logits]):
        raise ModelError(f"{label}: {logits!r} does not depend on the input {source.name!r}")
    return Interface(
        input=source.name,
        input_dtype=np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        input_shape=(shape[0], *shape[1:]),
        batch=shape[0],
        output=output,
        logits=logits,
        classes=_classes(logits, types, producers(proto.graph), label),
        head=head,
    )


def _types(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    types = value_types(proto.graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # an unknown type is reported where it matters
        return types
    return {**types, **value_types(inferred.graph)}


def _find_input(proto: onnx.ModelProto, input_name: str | None, label: str) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = {info.name: info for info in proto.graph.input if info.name not in weights}
    if not inputs:
        raise ModelError(f"{label}: the graph has no input")
    if input_name is not None and input_name not in inputs:
        raise OptionError(f"{label}: no input named {input_name!r}{_hint(input_name, inputs)}")
    if len(inputs) > 1:
        others = sorted(name for name in inputs if name != input_name)
        if input_name is None:
            raise OptionError(
                f"{label}: the model has {len(inputs)} inputs ({', '.join(sorted(inputs))}); "
                "only models with one input are supported, give the others constant values"
            )
        raise ModelError(
            f"{label}: besides {input_name!r} the model needs {', '.join(others)}; only models "
            "with one input are supported, give the others constant values"
        )
    (only,) = inputs.values()
    return only


def _find_logits(
    proto: onnx.ModelProto, types: Mapping[str, onnx.TypeProto], label: str
) -> tuple[str, str, Head]:
    candidates = [
        (output.name, *_behind_head(output.name, proto, types))
        for output in proto.graph.output
        if _looks_like_scores(output.name, types)
    ]
    distinct = {logits: (output, logits, head) for output, logits, head in reversed(candidates)}
    if len(distinct) == 1:
        return candidates[0]
    if not candidates:
        shapes = ", ".join(
            f"{info.name} {list(shape_of(info.type) or [])}" for info in proto.graph.output
        )
        raise ModelError(
            f"{label}: no output has shape (batch, classes) with at least 2 classes ({shapes}); "
            "name the tensor that holds the logits with --logits"
        )
    names = ", ".join(output for output, _, _ in candidates)
    raise OptionError(f"{label}: several outputs could be the logits ({names}); choose by --logits")


def _named_logits(
    proto: onnx.ModelProto, types: Mapping[str, onnx.TypeProto], name: str, label: str
) -> tuple[str, str, Head]:
    made_by = producers(proto.graph)
    if name not in made_by:
        raise OptionError(f"{label}: no tensor named {name!r} in the graph{_hint(name, made_by)}")
    shape = shape_of(types.get(name))
    if shape is not None and len(shape) != 2:
        raise OptionError(f"{label}: {name!r} has shape {list(shape)}, logits are (batch, classes)")
    for output in proto.graph.output:
        found, head = _behind_head(output.name, proto, types)
        if output.name == name and found != name:
            return output.name, found, head  # the named output is probabilities
        if found == name:
            return output.name, name, head
    for output in proto.graph.output:
        if name in ancestors(proto.graph, [output.name]):
            return output.name, name, "logits"
    raise OptionError(f"{label}: no output of the graph depends on {name!r}")


def _behind_head(
    output: str, proto: onnx.ModelProto, types: Mapping[str, onnx.TypeProto]
) -> tuple[str, Head]:
    """The tensor before a final softmax (and Identity or Cast around it), and what it was."""
    made_by = producers(proto.graph)
    tensor = output
    while (node := made_by.get(tensor)) is not None:
        if node.domain not in STANDARD_DOMAINS:
            break
        if node.op_type in ("Identity", "Cast", "Dropout"):
            tensor = node.input[0]
            continue
        if node.op_type in ("Softmax", "LogSoftmax") and attribute(node, "axis", -1) in (1, -1):
            shape = shape_of(types.get(node.input[0]))
            if shape is None or len(shape) == 2:
                head: Head = "softmax" if node.op_type == "Softmax" else "log_softmax"
                return node.input[0], head
        break
    return output, "logits"


def _looks_like_scores(name: str, types: Mapping[str, onnx.TypeProto]) -> bool:
    kind = types.get(name)
    shape = shape_of(kind)
    if kind is None or shape is None or kind.tensor_type.elem_type not in _FLOATS:
        return False
    return len(shape) == 2 and (shape[1] is None or shape[1] >= 2)


def _classes(
    logits: str,
    types: Mapping[str, onnx.TypeProto],
    made_by: Mapping[str, onnx.NodeProto],
    label: str,
) -> int:
    tensor = logits
    for _ in range(16):
        shape = shape_of(types.get(tensor))
        if shape is not None and len(shape) == 2 and shape[1] is not None:
            if shape[1] < 2:
                raise ModelError(f"{label}: {logits!r} has one column; at least 2 classes needed")
            return shape[1]
        node = made_by.get(tensor)
        width = None if node is None else _width_of_weights(node, types)
        if width is not None and width >= 2:
            return width
        if node is None or node.op_type not in ("Identity", "Cast", "Dropout", "Add"):
            break
        tensor = node.input[0]
    raise ModelError(
        f"{label}: the number of classes of {logits!r} is not in the file; run "
        "onnx.shape_inference.infer_shapes on it, or export it with a fixed number of classes"
    )


def _width_of_weights(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> int | None:
    if node.op_type not in ("Gemm", "MatMul", "Add") or len(node.input) < 2:
        return None
    shape = shape_of(types.get(node.input[1]))
    if not shape:
        return None
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return shape[0] if transposed else shape[-1]


def _hint(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(sorted(known)[:8])
    return f"; there are: {shown}" if len(known) <= 8 else ""
