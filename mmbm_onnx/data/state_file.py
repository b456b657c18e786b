"""The file that the state of learning is kept in: an ``.npz`` without pickles, and a header."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmbm_onnx.data.npy import load_member, open_member
from mmbm_onnx.errors import DataError

_FORMAT = "mmbm-onnx checkpoint 1"
_HEADER = "header"
_DAMAGE = (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, KeyError, TypeError)

Arrays = dict[str, np.ndarray[Any, Any]]


def pack(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """The file's content.

    Args:
        header: Plain JSON types.
        arrays: Plain numbers, by name.
    """
    # Names are what the archive's checksums leave out.
    full = {"format": _FORMAT, **header, "names": sorted(arrays)}
    buffer = io.BytesIO()
    encoded = np.frombuffer(json.dumps(full).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, **{_HEADER: encoded, **arrays})
    return buffer.getvalue()


def unpack(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a file.

    Raises:
        DataError: It is none of ours, or damaged; without the way out.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                info.filename.removesuffix(".npy"): load_member(
                    archive, open_member(archive, info, f"{path}: {info.filename}")
                )
                for info in archive.infolist()
            }
        header = json.loads(arrays.pop(_HEADER).tobytes())
        whole = header["format"] == _FORMAT and header["names"] == sorted(arrays)
    except (DataError, *_DAMAGE):
        whole = False
    if not whole:
        raise DataError(f"{path}: is no checkpoint, or damaged")
    return header, arrays


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this tool, whole or not: by its first bytes."""
    try:
        with path.open("rb") as file:
            return _FORMAT.encode() in file.read(1 << 16)
    except OSError:
        return False
