"""Weights that stay in their files, so that a large model is not held several times over.

Such a tensor is an initializer of the main graph whose proto goes on saying where its bytes are,
so copies of the proto are small. What it says was written by ``map_tensor``, never by the model's
author: the folder, and what the file was when it was checked; one that has changed is refused.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mmbm_onnx.errors import ModelError

_FOLDER = "mmbm_onnx.folder"
_STATE = "mmbm_onnx.state"
_CHUNK = 1 << 24  # bytes looked at together

# One view of each file, whoever looks at it: pages in two views count twice against a process.
_views: weakref.WeakValueDictionary[tuple[Path, str], mmap.mmap] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a mapped tensor are.

    Attributes:
        folder: The model's directory.
        location: Path of the file below it.
        offset, length: In bytes.
        state: What the file was when it was checked.
    """

    folder: Path
    location: str
    offset: int
    length: int
    state: str

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.folder / self.location

    def open(self) -> int:
        """A descriptor of the file, for reading.

        Raises:
            ModelError: It is not what it was, or cannot be read.
        """
        try:
            handle = open_checked(self.file)
        except OSError as error:
            raise ModelError(f"{self.file}: cannot be read ({error.strerror})") from None
        if file_state(os.fstat(handle)) != self.state:
            os.close(handle)
            raise ModelError(f"{self.file}: the file changed while it was used")
        return handle

    def chunks(self) -> Iterator[bytes]:
        """The tensor's bytes, a few at a time.

        Raises:
            ModelError: As ``open``; also when the file changes meanwhile.
        """
        handle = self.open()
        try:
            for start in range(0, self.length, _CHUNK):
                wanted = min(_CHUNK, self.length - start)
                os.lseek(handle, self.offset + start, os.SEEK_SET)
                chunk = os.read(handle, wanted)
                if len(chunk) != wanted or file_state(os.fstat(handle)) != self.state:
                    raise ModelError(f"{self.file}: the file changed while it was used")
                yield chunk
        except OSError as error:
            raise ModelError(f"{self.file}: cannot be read ({error.strerror})") from None
        finally:
            os.close(handle)

    def view(self) -> mmap.mmap:
        """All bytes of the file, read when they are looked at.

        Raises:
            ModelError: As ``open``.
        """
        key = (self.file, self.state)
        found = _views.get(key)
        if found is None:
            handle = self.open()
            try:
                found = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise ModelError(f"{self.file}: cannot be mapped ({error})") from None
            finally:
                os.close(handle)
            _views[key] = found
        return found


def open_checked(file: Path) -> int:
    """A descriptor of a file that was checked, for reading.

    A link put in place since the check is not followed, and a pipe not waited for.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(file, flags | getattr(os, "O_BINARY", 0))


def is_mappable(tensor: onnx.TensorProto, length: int) -> bool:
    """Whether NumPy can look at a tensor's bytes where they lie: each element has its own."""
    if tensor.data_type == onnx.TensorProto.STRING or not length:
        return False
    size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size * math.prod(tensor.dims) == length


def map_tensor(
    tensor: onnx.TensorProto, folder: Path, location: str, offset: int, length: int
) -> None:
    """Leave a tensor's bytes where they are; what its proto said of them is replaced.

    Args:
        tensor: An initializer of the main graph; ``is_mappable``.
        folder: The model's directory.
        location: Path of a checked file below it.
        offset, length: Of the tensor's bytes there.

    Raises:
        OSError: The file is gone.
        ModelError: The folder's path is not text.
    """
    folder = folder.resolve()
    try:
        str(folder).encode()
    except UnicodeEncodeError:  # neither the proto nor ONNX Runtime can name it
        raise ModelError(
            f"{os.fsencode(folder)!r}: the path of a model above 1 GiB must be UTF-8; rename it"
        ) from None
    state = file_state(os.lstat(folder / location))
    _point(tensor, location, offset, length)
    tensor.external_data.add(key=_FOLDER, value=str(folder))
    tensor.external_data.add(key=_STATE, value=state)


def is_mapped(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's bytes stayed in their file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL and any(
        entry.key == _STATE for entry in tensor.external_data
    )


def is_reserved(key: str) -> bool:
    """Whether a key of ``external_data`` is one that only ``map_tensor`` may write."""
    return key in (_FOLDER, _STATE)


def place_of(tensor: onnx.TensorProto) -> Place:
    """Where a mapped tensor's bytes are."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return Place(
        Path(entries[_FOLDER]),
        entries["location"],
        int(entries["offset"]),
        int(entries["length"]),
        entries[_STATE],
    )


def mapped(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The tensors of a model whose bytes stayed in their files."""
    return [tensor for tensor in proto.graph.initializer if is_mapped(tensor)]


def to_array(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    """A tensor's values; read-only, and read only when looked at, where it is mapped.

    Raises:
        ModelError: Its file changed.
        TypeError, ValueError, KeyError: As ``onnx.numpy_helper.to_array``.
    """
    if not is_mapped(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    place = place_of(tensor)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = place.length // dtype.itemsize
    return np.frombuffer(place.view(), dtype, count, place.offset).reshape(tuple(tensor.dims))


def check_unchanged(proto: onnx.ModelProto) -> None:
    """Make sure that the files of mapped weights are what they were.

    Raises:
        ModelError: One is not.
    """
    for place in {(p.file, p.state): p for p in map(place_of, mapped(proto))}.values():
        os.close(place.open())


def same_bytes(left: onnx.TensorProto, right: onnx.TensorProto) -> bool:
    """Whether two tensors, one of them mapped at least, hold the same bytes."""
    first, second = (to_array(tensor).reshape(-1).view(np.uint8) for tensor in (left, right))
    return first.size == second.size and all(
        np.array_equal(first[start : start + _CHUNK], second[start : start + _CHUNK])
        for start in range(0, first.size, _CHUNK)
    )


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with mapped weights as inputs, which is all that the checker and inference need.

    Returns:
        A copy, or the argument itself if it has none.
    """
    large = {tensor.name: tensor for tensor in mapped(proto)}
    if not large:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in large]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    inputs = {info.name for info in copy.graph.input}
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        for name, tensor in large.items()
        if name not in inputs
    )
    return copy


def relative(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """A model as ONNX has it, external data below one folder, and that folder.

    Returns:
        A copy, or the argument itself and None where no weight is mapped.

    Raises:
        ModelError: A file changed.
    """
    if not mapped(proto):
        return proto, None
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    check_unchanged(proto)
    folders = set()
    for tensor in mapped(copy):
        place = place_of(tensor)
        folders.add(place.folder)
        _point(tensor, place.location, place.offset, place.length)
    (folder,) = folders
    return copy, folder


def moved(proto: onnx.ModelProto, location: str) -> tuple[onnx.ModelProto, list[Place | int]]:
    """A model whose mapped weights are to be in a file of its own.

    Tensors that share bytes go on sharing them; each range begins on a page, so that it can be
    mapped again.

    Args:
        proto: The model; not changed.
        location: The file's name beside the model.

    Returns:
        A copy with its weights there, and what the file holds: places, and counts of zero bytes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    content: list[Place | int] = []
    offsets: dict[Place, int] = {}
    end = 0
    for tensor in mapped(copy):
        place = place_of(tensor)
        if place not in offsets:
            gap = -end % mmap.ALLOCATIONGRANULARITY
            offsets[place] = end + gap
            end += gap + place.length
            content += [gap, place] if gap else [place]
        _point(tensor, location, offsets[place], place.length)
    return copy, content


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def file_state(status: os.stat_result) -> str:
    """What tells a regular file from another one, and from itself after a change."""
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))
