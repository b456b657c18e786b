"""How a classifier is fed and read: its input, its logits, its batch axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from mmbm_onnx.errors import ModelError, OptionError, did_you_mean, listing, shortened
from mmbm_onnx.graph.embedding import INTEGERS, find_start
from mmbm_onnx.graph.heads import Tail, behind_head, is_column, is_matrix, is_row, same_values
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.walk import FLOATS, ancestors, attribute, producers, shape_of, value_types
from mmbm_onnx.types import SINGLE_HEADS, Interface

Types = Mapping[str, onnx.TypeProto]
_SHOWN = 8  # names at most in a message


def find_interface(
    proto: onnx.ModelProto,
    *,
    input_name: str | None = None,
    logits_name: str | None = None,
    label: str = "model",
) -> Interface:
    """Find the one input with a batch axis and the tensor that holds the logits.

    The logits are looked for behind a final Softmax or LogSoftmax over the classes, since a
    margin is measured before them, and a single one behind a final Sigmoid. Behind an integer
    input the tensor is looked for that it is embedded as.

    Args:
        proto: A checked model; not changed.
        input_name: Graph input to use when there are several.
        logits_name: Tensor that holds the logits, any in the graph, when it cannot be found.
        label: What messages call the model.

    Raises:
        ModelError: The model is not a classifier this tool can take: several inputs, one of
            strings, no batch axis, no output of shape (batch, classes), fewer than two classes,
            integers that are not embedded.
        OptionError: A name does not exist, or several outputs qualify and none was named.
    """
    types = value_types(infer(proto).graph)
    source = _find_input(proto, input_name, label)
    shape, dtype = _check_input(source, label)
    if logits_name is None:
        tail = _find_logits(proto, types, label)
    else:
        tail = _named_logits(proto, types, logits_name, label)
    if source.name not in ancestors(proto.graph, [tail.logits]):
        raise ModelError(f"{label}: {tail.logits!r} does not depend on the input {source.name!r}")
    single = tail.head in SINGLE_HEADS
    classes = 2 if single else _classes(tail.logits, types, producers(proto.graph), label)
    _check_output(tail, shape[0], 1 if single else classes, types, label)
    start, tokens = None, False
    if source.type.tensor_type.elem_type in INTEGERS:
        start, tokens = find_start(proto.graph, source.name, tail.logits, types, label)
    return Interface(
        input=source.name,
        input_dtype=dtype,
        input_shape=shape,
        batch=shape[0],
        output=tail.output,
        logits=tail.logits,
        classes=classes,
        head=tail.head,
        start=start,
        tokens=tokens,
    )


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
                f"{label}: the model has {len(inputs)} inputs ({listing(sorted(inputs))}); "
                "only models with one input are supported, give the others constant values"
            )
        raise ModelError(
            f"{label}: besides {input_name!r} the model needs {listing(others)}; only models "
            "with one input are supported, give the others constant values"
        )
    (only,) = inputs.values()
    return only


def _check_input(
    source: onnx.ValueInfoProto, label: str
) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
    """Shape and element type of the input, if samples can be fed to it."""
    where = f"{label}: input {source.name!r}"
    if not source.type.HasField("tensor_type"):
        raise ModelError(f"{where} is not a tensor; only tensors of numbers are supported")
    element = source.type.tensor_type.elem_type
    if element not in (*FLOATS, *INTEGERS):
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        kind = names.get(element, f"of unknown type {element}")
        raise ModelError(
            f"{where} is {kind}; only floating-point inputs, integers to 64 bits and uint8 are "
            "supported"
        )
    shape = shape_of(source.type)
    if shape is None or len(shape) < 2:
        shown = "unknown" if shape is None else list(shape)
        raise ModelError(
            f"{where} has no batch axis (shape {shown}); export the model with one as axis 0"
        )
    return shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))


def _check_output(tail: Tail, batch: int | None, columns: int, types: Types, label: str) -> None:
    kind = types.get(tail.output)
    shape = shape_of(kind)
    if kind is None or shape is None or not is_row(shape):
        return
    decided = kind.tensor_type.elem_type in INTEGERS  # by ArgMax, its axis kept
    if shape[1] is not None and shape[1] != columns and not (decided and shape[1] == 1):
        raise OptionError(
            f"{label}: {tail.logits!r} has {columns} columns, the output {tail.output!r} "
            f"{shape[1]}; name the tensor that holds the logits with --logits"
        )
    if batch is not None and shape[0] is not None and shape[0] != batch:
        raise ModelError(
            f"{label}: the input holds {batch} samples, the output {tail.output!r} {shape[0]}; "
            "export the model with the batch as axis 0 of both"
        )


def _find_logits(proto: onnx.ModelProto, types: Types, label: str) -> Tail:
    outputs = [info.name for info in proto.graph.output if _looks_like_scores(info.name, types)]
    spread = [info.name for info in proto.graph.output if _spreads_scores(info.name, types)]
    # Beside rows of two axes they are features, unless a softmax made them for no other use.
    behind = ancestors(proto.graph, outputs)
    outputs += [
        name
        for name in spread
        if not outputs
        or (
            name not in behind
            and behind_head(name, proto, types).head in ("softmax", "log_softmax")
        )
    ]
    if not outputs:
        columns = [info.name for info in proto.graph.output if _is_float_column(info.name, types)]
        tails = [behind_head(output, proto, types) for output in columns]
        if len(tails) == 1 and tails[0].head == "sigmoid":
            return _usable(tails[0], label)
        shapes = ", ".join(
            f"{shortened(info.name)} {list(shape_of(types.get(info.name)) or [])}"
            for info in proto.graph.output[:_SHOWN]
        )
        if len(proto.graph.output) > _SHOWN:
            shapes += ", ..."
        raise ModelError(
            f"{label}: no output has shape (batch, classes) with at least 2 classes ({shapes}); "
            "end the model with one, or name the tensor that holds the logits with --logits"
            + (", the single one of two classes too" if columns else "")
        )
    tails = [behind_head(output, proto, types) for output in outputs]
    chains = {tail.logits: list(same_values(tail.logits, proto)) for tail in tails}
    if len({chain[-1] for chain in chains.values()}) > 1:
        raise OptionError(
            f"{label}: several outputs could be the logits ({listing(outputs)}); choose by --logits"
        )
    # The first tensor that holds them is behind all outputs, which are then corrected alike.
    tails.sort(key=lambda tail: len(chains[tail.logits]))
    return _usable(tails[0], label)


def _named_logits(proto: onnx.ModelProto, types: Types, name: str, label: str) -> Tail:
    made_by = producers(proto.graph)
    if name not in made_by:
        likely = [
            one for one in made_by if _looks_like_scores(one, types) or _is_float_column(one, types)
        ]
        hint = did_you_mean(name, made_by) or _listed(likely[-_SHOWN:])
        raise OptionError(f"{label}: no tensor named {name!r} in the graph{hint}")
    kind = types.get(name)
    shape = shape_of(kind)
    if shape is not None and not is_row(shape):
        raise OptionError(
            f"{label}: {name!r} has shape {list(shape)}, logits have shape (batch, classes)"
        )
    if kind is not None and kind.tensor_type.elem_type not in (0, *FLOATS):
        raise OptionError(f"{label}: {name!r} is not floating point, so it holds no logits")
    outputs = sorted(
        (info.name for info in proto.graph.output),
        key=lambda output: not _looks_like_scores(output, types),
    )
    for output in outputs:
        tail = behind_head(output, proto, types)
        if name in (output, tail.logits):
            if tail.head == "logits" and is_column(types.get(output)):
                return Tail(output, name, "logit")
            return _usable(tail, label)  # a named output may be probabilities
    single = shape is not None and len(shape) == 2 and shape[1] == 1
    for output in outputs:
        if name in ancestors(proto.graph, [output]):
            if single:
                return _single(output, name, proto, label)
            return Tail(output, name, "logits")
    raise OptionError(f"{label}: no output of the graph depends on {name!r}")


def _single(output: str, logit: str, proto: onnx.ModelProto, label: str) -> Tail:
    """The tail of an output that is the single logit itself; of any other what it decides by is
    not known."""
    tensor = output
    for tensor in same_values(output, proto):
        if tensor == logit:
            return Tail(output, logit, "logit")
    raise ModelError(
        f"{label}: output {output!r} is neither the single logit {logit!r} nor its Sigmoid, so "
        "what it decides by is not known; end the model with one of them"
    )


def _usable(tail: Tail, label: str) -> Tail:
    if tail.problem:
        raise ModelError(f"{label}: {tail.problem}")
    return tail


def _looks_like_scores(name: str, types: Types) -> bool:
    return _is_float(name, types) and is_matrix(types.get(name))


def _spreads_scores(name: str, types: Types) -> bool:
    """Whether an output has scores with further axes of length 1."""
    shape = shape_of(types.get(name))
    if shape is None or not is_row(shape) or not _is_float(name, types):
        return False
    return len(shape) > 2 and shape[1] is not None and shape[1] >= 2


def _is_float_column(name: str, types: Types) -> bool:
    return _is_float(name, types) and is_column(types.get(name))


def _is_float(name: str, types: Types) -> bool:
    return name in types and types[name].tensor_type.elem_type in FLOATS


def _classes(logits: str, types: Types, made_by: Mapping[str, onnx.NodeProto], label: str) -> int:
    """Number of classes, from the shape of the logits or of the weights that compute them."""
    stack, seen = [logits], set[str]()
    while stack:
        tensor = stack.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        shape = shape_of(types.get(tensor))
        if shape is not None and is_row(shape) and shape[1] is not None:
            if tensor == logits and shape[1] < 2:
                raise ModelError(f"{label}: {logits!r} has one column; at least 2 classes needed")
            if shape[1] >= 2:
                return shape[1]
        node = made_by.get(tensor)
        if node is None:
            continue
        width = _width_of_weights(node, types)
        if width is not None and width >= 2:
            return width
        if node.op_type in ("Identity", "Cast", "Dropout"):
            stack.append(node.input[0])
        elif node.op_type == "Add":
            stack.extend(node.input)
    raise ModelError(
        f"{label}: the number of classes of {logits!r} is not in the file; run "
        "onnx.shape_inference.infer_shapes on it, or export it with a fixed number of classes"
    )


def _width_of_weights(node: onnx.NodeProto, types: Types) -> int | None:
    if node.op_type not in ("Gemm", "MatMul") or len(node.input) < 2:
        return None
    shape = shape_of(types.get(node.input[1]))
    if shape is None or len(shape) < 2:
        return None
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return shape[-2] if transposed else shape[-1]


def _hint(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    if close := did_you_mean(name, known):
        return close
    return _listed(sorted(known)) if len(known) <= _SHOWN else ""


def _listed(names: Sequence[str]) -> str:
    return f"; there are: {listing(names)}" if names else ""
