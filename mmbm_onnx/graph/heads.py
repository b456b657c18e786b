"""What lies between the logits and the output: a softmax or sigmoid, and steps that change no
value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from mmbm_onnx.graph.softmax import behind_written_softmax
from mmbm_onnx.graph.walk import (
    STANDARD_DOMAINS,
    attribute,
    producers,
    shape_of,
    standard_opset,
)
from mmbm_onnx.types import Head

_SAME_VALUE = frozenset({"Cast", "Dropout", "Identity"})
_OTHER_SHAPE = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a classifier.

    Attributes:
        output: Name of the graph output.
        logits: Name of the tensor before the softmax or sigmoid; ``output`` itself without one.
        head: Which it was.
        problem: Why it cannot be worked with, or None.
    """

    output: str
    logits: str
    head: Head
    problem: str | None = None


def behind_head(output: str, proto: onnx.ModelProto, types: Mapping[str, onnx.TypeProto]) -> Tail:
    """Look behind a final Softmax (written out or not) or LogSoftmax, and Identity, Cast, Flatten,
    ... around it; and behind the Sigmoid of a single column, which is that of class 1 of two.

    Before opset 13 a softmax flattens its input to two axes at ``axis`` (default 1), which for
    two axes is the same; from 13 on it works along one axis (default -1).
    """
    made_by = producers(proto.graph)
    tensor = output
    while (node := made_by.get(tensor)) is not None and node.domain in STANDARD_DOMAINS:
        if node.op_type in _SAME_VALUE or node.op_type in _OTHER_SHAPE:
            tensor = node.input[0]
            continue
        if node.op_type == "Sigmoid" and is_column(types.get(output)):
            return _behind_sigmoid(output, node, made_by, types)
        if node.op_type not in ("Softmax", "LogSoftmax"):
            logits = behind_written_softmax(node, made_by, proto.graph)
            if logits is not None and is_matrix(types.get(logits)):
                return Tail(output, logits, "softmax")
            break
        head: Head = "softmax" if node.op_type == "Softmax" else "log_softmax"
        tail = Tail(output, node.input[0], head)
        return Tail(output, node.input[0], head, _problem(node, tail, proto, types))
    return Tail(output, output, "logits")


def same_values(output: str, proto: onnx.ModelProto) -> Iterator[str]:
    """A tensor and those that it has its values from, in another shape or type at most."""
    made_by = producers(proto.graph)
    yield output
    while (node := made_by.get(output)) is not None and node.domain in STANDARD_DOMAINS:
        if node.op_type not in _SAME_VALUE | _OTHER_SHAPE:
            return
        output = node.input[0]
        yield output


def is_row(shape: tuple[int | None, ...] | None) -> bool:
    """Whether a shape is ``(batch, classes)``, or that with axes of length 1 after it, as heads
    have it that are convolutions."""
    return shape is not None and len(shape) >= 2 and all(length == 1 for length in shape[2:])


def is_matrix(kind: onnx.TypeProto | None) -> bool:
    """Whether a tensor has the shape ``(batch, classes)``, with two classes or more."""
    shape = shape_of(kind)
    return shape is not None and len(shape) == 2 and (shape[1] is None or shape[1] >= 2)


def is_column(kind: onnx.TypeProto | None) -> bool:
    """Whether a tensor has one number per sample, ``(batch,)`` or ``(batch, 1)``."""
    shape = shape_of(kind)
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _behind_sigmoid(
    output: str,
    sigmoid: onnx.NodeProto,
    made_by: Mapping[str, onnx.NodeProto],
    types: Mapping[str, onnx.TypeProto],
) -> Tail:
    tensor = sigmoid.input[0]
    while (shape := shape_of(types.get(tensor))) is None or len(shape) != 2 or shape[1] != 1:
        node = made_by.get(tensor)
        if node is None or node.op_type not in _SAME_VALUE | _OTHER_SHAPE:
            problem = (
                f"the Sigmoid before the output {output!r} works on no tensor of shape (batch, 1); "
                "keep one in the model"
            )
            return Tail(output, sigmoid.input[0], "sigmoid", problem)
        tensor = node.input[0]
    return Tail(output, tensor, "sigmoid")


def _problem(
    node: onnx.NodeProto,
    tail: Tail,
    proto: onnx.ModelProto,
    types: Mapping[str, onnx.TypeProto],
) -> str | None:
    shape = shape_of(types.get(tail.logits))
    if shape is None:
        return None
    what = f"the {node.op_type} before the output {tail.output!r}"
    if not is_row(shape):
        return (
            f"{what} works on shape {list(shape)}, not (batch, classes); "
            "flatten its input in the model"
        )
    opset = standard_opset(proto.opset_import) or 1
    axis = attribute(node, "axis", -1 if opset >= 13 else 1)
    axis += len(shape) if axis < 0 else 0
    if axis == 0:
        return f"{what} runs over axis 0, which mixes the samples of a batch"
    if axis != 1:
        return f"{what} runs over axis {axis}, the classes are on axis 1"
    after = shape_of(types.get(tail.output))
    columns = after[1] if after is not None and is_row(after) else None
    if columns is not None and shape[1] is not None and columns != shape[1]:
        return f"{what} works on {shape[1]} columns, the output has {columns}"
    return None
