"""Arrays out of an ``.npz`` that nobody vouches for: checked before anything is allocated.

Format: ``numpy.lib.format`` (NEP 1) inside a zip archive.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import DataError

_MAX_HEADER = 10_000
_CHUNK = 1 << 24
# Deflate cannot do better than this, so an entry that claims more is lying about its size.
_MAX_DEFLATE_RATIO = 1032

_HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True)
class ArrayMember:
    """One array of the archive whose header has been checked against the archive's directory.

    Attributes:
        where: File and member, for messages.
        info: Its entry in the archive.
        shape: As declared; fits the size of the entry.
        dtype: Plain numbers or booleans, in the file's byte order.
        fortran_order: Whether the first axis varies fastest.
        offset: Bytes before the data.
    """

    where: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> ArrayMember:
    """Read and check one array's header.

    Raises:
        DataError: The header is damaged, declares objects, or more or less data than there is.
    """
    _check_entry(info, where)
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise DataError(f"{where}: .npy version {version} holds no plain numbers")
            shape, fortran_order, dtype = _HEADERS[version](file, max_header_size=_MAX_HEADER)
            offset = file.tell()
    except DataError:
        raise
    except Exception as error:  # a hostile header reaches ast, tokenize and numpy's dtype parser
        raise DataError(f"{where}: damaged .npy header: {_one_line(error)}") from error
    if dtype.hasobject:
        raise DataError(f"{where}: holds pickled objects, which are never loaded; save numbers")
    if dtype.kind not in "biufc" or dtype.subdtype is not None:
        raise DataError(f"{where}: dtype {dtype} is not a plain number")
    if any(axis < 0 for axis in shape):
        raise DataError(f"{where}: negative axis in the declared shape {shape}")
    declared = math.prod(shape) * dtype.itemsize
    if declared != info.file_size - offset:
        raise DataError(
            f"{where}: declares shape {shape} of {dtype}, {declared} bytes, but holds "
            f"{info.file_size - offset}"
        )
    return ArrayMember(where, info, shape, dtype, fortran_order, offset)


def load_member(archive: zipfile.ZipFile, member: ArrayMember) -> npt.NDArray[Any]:
    """The array, in native byte order, its checksum verified.

    Raises:
        DataError: The data is truncated or damaged.
    """
    flat = np.empty(math.prod(member.shape), member.dtype)
    buffer = flat.view(np.uint8)
    try:
        with archive.open(member.info) as file:
            file.read(member.offset)
            _read_into(file, buffer, member.where)
            # The checksum is compared when the end is met.
            if file.read(1):
                raise DataError(f"{member.where}: data goes on after the declared end")
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{member.where}: damaged data: {_one_line(error)}") from error
    array = flat.reshape(member.shape, order="F" if member.fortran_order else "C")
    return array.astype(member.dtype.newbyteorder("="), copy=False)


def _read_into(file: IO[bytes], buffer: npt.NDArray[np.uint8], where: str) -> None:
    start = 0
    while start < buffer.size:
        chunk = file.read(min(_CHUNK, buffer.size - start))
        if not chunk:
            raise DataError(f"{where}: truncated")
        buffer[start : start + len(chunk)] = np.frombuffer(chunk, np.uint8)
        start += len(chunk)


def _check_entry(info: zipfile.ZipInfo, where: str) -> None:
    if info.flag_bits & 1:
        raise DataError(f"{where}: encrypted")
    if info.compress_type == zipfile.ZIP_STORED:
        possible = info.compress_size
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        possible = info.compress_size * _MAX_DEFLATE_RATIO
    else:
        raise DataError(f"{where}: unusual compression; write it with numpy.savez_compressed")
    if info.file_size > possible:
        raise DataError(
            f"{where}: {info.compress_size} stored bytes cannot hold the {info.file_size} declared"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(cast(object, error)).split())[:200] or type(error).__name__
