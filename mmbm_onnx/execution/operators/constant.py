"""Operators that make tensors from attributes and shapes."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.constants import tensor_from_array
from mmbm_onnx.execution.operators.arguments import dtype_of, integers
from mmbm_onnx.execution.registry import NodeView, operator


@operator(
    "Constant",
    attributes=("value", "value_float", "value_floats", "value_int", "value_ints"),
    limits="no strings, no sparse tensors",
)
def constant(node: NodeView) -> Tensor:
    """The attribute that is given, as a tensor."""
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        value = node.get(name)
        if value is not None:
            return tensor_from_array(np.asarray(value, dtype=dtype), node.promote_half)
    raise UnsupportedOperatorError("no value that torch can hold")


@operator("ConstantOfShape", since=9, attributes=("value",), host=(0,))
def constant_of_shape(node: NodeView, shape: Tensor) -> Tensor:
    """A tensor of the given shape with one value everywhere, float32 zero by default."""
    value = node.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    filler = tensor_from_array(np.asarray(value), node.promote_half).reshape(())
    return filler.expand(integers(shape)).contiguous()


@operator("Range", since=11, host=(0, 1, 2))
def number_range(_: NodeView, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... up to but without limit."""
    first, last, step = (value.reshape(()).item() for value in (start, limit, delta))
    if step == 0:
        raise ModelError("delta is zero")
    # Integers divide exactly; floating point would lose large ones.
    exact = not start.is_floating_point()
    count = -((first - last) // step) if exact else ceil((last - first) / step)
    places = torch.arange(max(0, int(count))).to(start.dtype)
    return start.reshape(()) + places * delta.reshape(())


@operator("EyeLike", since=9, attributes=("dtype", "k"))
def eye_like(node: NodeView, x: Tensor) -> Tensor:
    """Ones on the k-th diagonal of a matrix shaped like ``x``."""
    if x.ndim != 2:
        raise ModelError(f"input has {x.ndim} axes, expected 2")
    elem_type = node.get("dtype")
    dtype = x.dtype if elem_type is None else dtype_of(node, elem_type)
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    on_diagonal: Tensor = columns - rows == int(node.get("k", 0))
    return on_diagonal.to(dtype)


@operator("Cast", since=6, attributes=("to", "saturate", "round_mode"), limits="no strings")
def cast(node: NodeView, x: Tensor) -> Tensor:
    """``x`` in another element type; floating point becomes integer by truncation."""
    return x.to(dtype_of(node, node.attributes["to"]))


@operator("CastLike", since=15, attributes=("saturate", "round_mode"), limits="no strings")
def cast_like(_: NodeView, x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the element type of ``like``."""
    return x.to(like.dtype)


@operator("Identity")
def identity(_: NodeView, x: Tensor) -> Tensor:
    """``x`` itself."""
    return x


@operator("Dropout", since=7, attributes=("ratio",), limits="inference only")
@operator("Dropout", since=12, attributes=("seed",), host=(1, 2), limits="inference only")
def dropout(
    node: NodeView, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``x`` itself and a mask that keeps everything (bool from opset 10 on, else like ``x``)."""
    if training is not None and bool(training.reshape(()).item()):
        raise UnsupportedOperatorError("training mode drops values at random")
    mask_type = torch.bool if node.opset >= 10 else x.dtype
    return x, torch.ones(x.shape, dtype=mask_type, device=x.device)
