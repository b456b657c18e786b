"""Checks on data that a model keeps outside its own file, and on the size of what it holds.

A model names its external files itself, so those names are hostile until shown otherwise: a file
is read only if it is a regular, singly linked file inside the model's own directory.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.walk import tensors

_ADVICE = "keep a model's data files beside it as plain files (cp -L copies what links point to)"


def external_files(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The external data files of the model at ``path``, each checked, sorted by name.

    Raises:
        ModelError: A location is absolute, leaves the model's directory, is a link, is missing,
            or is shorter than the model says.
    """
    found: dict[str, Path] = {}
    for tensor in tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location, file = _check_location(tensor, path)
            found[location] = file
            _check_extent(tensor, file, path)
    return tuple(found[name] for name in sorted(found))


def _check_location(tensor: onnx.TensorProto, path: Path) -> tuple[str, Path]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: external data of tensor {tensor.name!r}"
    if not location or "\0" in location:
        raise ModelError(f"{where} names no file; {_ADVICE}")
    pure = PurePosixPath(location)
    windows = PureWindowsPath(location)
    if pure.is_absolute() or windows.is_absolute() or windows.drive:
        raise ModelError(f"{where} has an absolute path {location!r}; {_ADVICE}")
    if ".." in pure.parts or ".." in windows.parts:
        raise ModelError(f"{where} leaves the model's directory ({location!r}); {_ADVICE}")
    file = path.parent
    for part in pure.parts:
        file = file / part
        if file.is_symlink():
            raise ModelError(f"{where} is behind the symbolic link {location!r}; {_ADVICE}")
    try:
        status = file.stat()
    except OSError:
        raise ModelError(f"{where} is missing: {location!r}; {_ADVICE}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{where} is not a regular file: {location!r}; {_ADVICE}")
    if status.st_nlink > 1:
        raise ModelError(f"{where} is a hard link: {location!r}; {_ADVICE}")
    return location, file


def _check_extent(tensor: onnx.TensorProto, file: Path, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{path}: external data of tensor {tensor.name!r}"
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else size - offset
    except ValueError:
        raise ModelError(f"{where} has an offset or length that is not a number") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{where} reaches past the end of {file.name} ({offset}+{length} of {size} bytes)"
        )
    expected = _declared_bytes(tensor, path)
    if expected is not None and length != expected:
        raise ModelError(
            f"{where} has {length} bytes, its type and dims need {expected}; the file is damaged"
        )


def check_tensor_sizes(proto: onnx.ModelProto, path: Path | str) -> None:
    """Check that every tensor in the file holds exactly the data that its dims and type declare.

    Neither ``onnx.load`` nor the checker does for raw data; ONNX Runtime would fail much later.

    Raises:
        ModelError: A tensor has negative dims, an unknown type, or too little or too much data.
    """
    for tensor in tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        expected = _declared_bytes(tensor, path)
        if expected is None or not tensor.HasField("raw_data"):
            continue
        if len(tensor.raw_data) != expected:
            raise ModelError(
                f"{path}: tensor {tensor.name!r} holds {len(tensor.raw_data)} bytes, its type and "
                f"dims need {expected}; the file is damaged"
            )


def _declared_bytes(tensor: onnx.TensorProto, path: Path | str) -> int | None:
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{path}: tensor {tensor.name!r} has negative dims; the file is damaged")
    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    try:
        itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has an unknown element type {tensor.data_type}"
        ) from None
    four_bit = (onnx.TensorProto.UINT4, onnx.TensorProto.INT4, onnx.TensorProto.FLOAT4E2M1)
    count: int = math.prod(tensor.dims)
    if tensor.data_type in four_bit:
        return (count + 1) // 2
    if itemsize == 1 and tensor.data_type > onnx.TensorProto.FLOAT4E2M1:
        return None  # packed types younger than this table
    return count * itemsize
