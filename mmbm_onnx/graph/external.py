"""Data that a model keeps outside its own file.

A model names its external files itself, so those names are hostile until shown otherwise: a file
is read only if it is a regular, singly linked file inside the model's own directory, and only as
far as the model's tensors need it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.content import declared_bytes
from mmbm_onnx.graph.mapped import is_mappable, is_reserved, map_tensor, open_checked
from mmbm_onnx.graph.walk import tensors

# Bytes from which on a tensor can stay outside: smaller ones may be shapes, which are looked at.
_LEAST = 1 << 16
_WINDOWS = os.name == "nt"
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT, which stat knows on Windows only
_ADVICE = "keep a model's data files beside it as plain files (cp -L copies what links point to)"


@dataclass(frozen=True, slots=True)
class _Piece:
    """The bytes of one tensor in a file, and whether they can stay there."""

    tensor: onnx.TensorProto
    location: str
    file: Path
    offset: int
    length: int
    can_stay: bool


def external_files(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The external data files of the model at ``path``, each checked, sorted by name.

    Raises:
        ModelError: A location is absolute, leaves the model's directory, is a link, is missing,
            or does not hold exactly what the tensor's dims and type need.
    """
    return tuple(sorted({piece.file for piece in _pieces(proto, path)}))


def external_bytes(proto: onnx.ModelProto, path: Path, *, map_weights: bool = False) -> int:
    """How many bytes ``load_external_data`` would bring into memory.

    Parts of a file that several tensors share count once for each.

    Args:
        proto, path, map_weights: As for ``load_external_data``.

    Raises:
        ModelError: As ``external_files``.
    """
    pieces = _pieces(proto, path)
    return sum(piece.length for piece in pieces if not (map_weights and piece.can_stay))


def load_external_data(proto: onnx.ModelProto, path: Path, *, map_weights: bool = False) -> None:
    """Bring the external data of the model at ``path`` into ``proto``, in place.

    Args:
        proto: The model.
        path: Its file.
        map_weights: Leave large weights of the main graph in their files; see ``graph.mapped``.

    Raises:
        ModelError: As ``external_files``, or a file cannot be read.
    """
    for piece in _pieces(proto, path):
        try:
            if map_weights and piece.can_stay:
                map_tensor(piece.tensor, path.parent, piece.location, piece.offset, piece.length)
                continue
            data = _read(piece)
        except OSError as error:
            raise ModelError(f"{piece.file}: cannot be read ({error.strerror})") from None
        if len(data) != piece.length:
            raise ModelError(f"{piece.file}: the file changed while it was read")
        piece.tensor.raw_data = data
        piece.tensor.ClearField("data_location")
        del piece.tensor.external_data[:]


def _read(piece: _Piece) -> bytes:
    with os.fdopen(open_checked(piece.file), "rb") as stream:
        stream.seek(piece.offset)
        return stream.read(piece.length)


def _pieces(proto: onnx.ModelProto, path: Path) -> list[_Piece]:
    weights = len(proto.graph.initializer)  # come first
    return [
        _locate(tensor, path, is_weight=number < weights)
        for number, tensor in enumerate(tensors(proto))
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]


def _locate(tensor: onnx.TensorProto, path: Path, *, is_weight: bool) -> _Piece:
    where = f"{path}: external data of tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise ModelError(f"{where} is described twice; the file is damaged")
    if not all(isinstance(text, str) for pair in entries.items() for text in pair):
        raise ModelError(f"{where} is described by text that is not UTF-8; the file is damaged")
    if any(is_reserved(key) for key in entries):
        raise ModelError(f"{where} is described by keys that no file may have")
    location = entries.get("location", "")
    file, size = _check_location(location, where, path)
    needed = declared_bytes(tensor, path)
    if needed is None:
        raise ModelError(f"{where} is of a type that cannot be kept outside the model")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else needed
    except ValueError:
        raise ModelError(f"{where} has an offset or length that is not a number") from None
    if offset < 0 or length < 0:
        raise ModelError(f"{where} has a negative offset or length; the file is damaged")
    if length != needed:
        raise ModelError(
            f"{where} has {length} bytes, its type and dims need {needed}; the file is damaged"
        )
    if offset + length > size:
        raise ModelError(
            f"{where} reaches past the end of {file.name} ({offset}+{length} of {size} bytes); "
            "the file is truncated"
        )
    stays = is_weight and length >= _LEAST and is_mappable(tensor, length)
    return _Piece(tensor, str(PurePosixPath(location)), file, offset, length, stays)


def _check_location(location: str, where: str, path: Path) -> tuple[Path, int]:
    """The file at a location and its size."""
    if not location or "\0" in location:
        raise ModelError(f"{where} names no file; {_ADVICE}")
    pure = PurePosixPath(location)
    windows = PureWindowsPath(location)
    if pure.is_absolute() or windows.drive or windows.root:
        raise ModelError(f"{where} has an absolute path {location!r}; {_ADVICE}")
    if ".." in pure.parts or ".." in windows.parts:
        raise ModelError(f"{where} leaves the model's directory ({location!r}); {_ADVICE}")
    if _WINDOWS and ":" in location:
        raise ModelError(f"{where} has a name with a colon {location!r}; {_ADVICE}")
    file = path.parent
    try:
        status = file.stat()
        for part in windows.parts if _WINDOWS else pure.parts:
            file = file / part
            status = file.lstat()
            if _is_link(status):
                raise ModelError(f"{where} is behind the symbolic link {location!r}; {_ADVICE}")
    except (OSError, ValueError):
        raise ModelError(f"{where} is missing: {location!r}; {_ADVICE}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{where} is not a regular file: {location!r}; {_ADVICE}")
    if status.st_nlink > 1:
        raise ModelError(f"{where} is a hard link: {location!r}; {_ADVICE}")
    return file, status.st_size


def _is_link(status: os.stat_result) -> bool:
    """Whether a file is a symbolic link or, on Windows, a junction, which leads elsewhere too."""
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION
