"""ONNX constants as torch tensors, sharing memory where the types allow it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.graph.mapped import is_mapped, to_array

_HALF = (torch.float16, torch.bfloat16)


def promoted(tensor: torch.Tensor, promote_half: bool) -> torch.Tensor:
    """``tensor`` itself, or in float32 if it is float16 or bfloat16 and halves are promoted."""
    return tensor.float() if promote_half and tensor.dtype in _HALF else tensor


def tensor_from_array(array: npt.NDArray[Any], promote_half: bool = True) -> torch.Tensor:
    """The CPU tensor of an array of any shape; it shares the array's memory where it can.

    Never write into the result: the array behind it may be a read-only view of a model.

    Raises:
        UnsupportedOperatorError: torch has no such element type (strings, 8-bit floats, 4-bit
            integers, complex numbers).
    """
    if array.dtype.name == "bfloat16":
        bits = torch.from_numpy(np.ascontiguousarray(array).view(np.int16).copy())
        return promoted(bits.view(torch.bfloat16).reshape(array.shape), promote_half)
    native = array.dtype.newbyteorder("=")
    if native.kind not in "fiub" or native.type.__module__ != "numpy":
        raise UnsupportedOperatorError(f"element type {array.dtype.name} has no torch counterpart")
    with warnings.catch_warnings():
        # torch warns that the memory is read-only; nothing here writes into tensors.
        warnings.simplefilter("ignore", UserWarning)
        try:
            # Kernels may rely on aligned memory; a file's author need not have cared.
            tensor = torch.from_numpy(array if array.flags.aligned else array.copy())
        except (TypeError, ValueError):
            # Big-endian or negatively strided memory: a plain copy has neither.
            tensor = torch.from_numpy(np.array(array, dtype=native, order="C"))
    return promoted(tensor, promote_half)


def tensor_from_proto(proto: onnx.TensorProto, promote_half: bool = True) -> torch.Tensor:
    """The CPU tensor of an ONNX tensor whose data is held in the proto, or mapped.

    Raises:
        ModelError: The data is missing (external), does not fit the shape, or its file changed.
        UnsupportedOperatorError: torch has no such element type.
    """
    if proto.data_location == onnx.TensorProto.EXTERNAL and not is_mapped(proto):
        raise ModelError(f"tensor {proto.name!r}: external data was not loaded into the model")
    try:
        array = to_array(proto)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"tensor {proto.name!r} cannot be read: {error}") from error
    try:
        return tensor_from_array(array, promote_half)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"tensor {proto.name!r}: {error}") from None
