"""Clean and triggered sets as an ``.npz`` with ``x``, ``y`` and ``target``. Never pickles."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmbm_onnx.data.assemble import assemble_images
from mmbm_onnx.data.integers import as_integers
from mmbm_onnx.data.layout import as_channels_last, image_input, takes_images
from mmbm_onnx.data.npy import ArrayMember, load_member, open_member
from mmbm_onnx.data.preprocessing import Preprocessing
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import IntArray, Interface, Samples

_MEMBERS = ("x", "y", "target")
# What others call them.
_OTHER_NAMES = {
    "x": ("x_test", "x_train", "images", "image", "data", "inputs", "samples", "features", "arr_0"),
    "y": ("y_test", "y_train", "labels", "label", "targets", "classes", "arr_1"),
}


def read_archive(
    path: Path, interface: Interface, preprocessing: Preprocessing, max_bytes: int
) -> Samples:
    """Read an ``.npz``.

    ``x`` of float16, float32 or float64 is passed as it is, in the model's layout, cast to the
    model's dtype; so are integers to a model that takes integers. ``x`` of uint8 is images
    ``(n, h, w, c)``, ``(n, c, h, w)`` or ``(n, h, w)``, in RGB order, that are preprocessed. ``y``
    and ``target`` are integers ``(n,)``, ``target`` also a single one for all; both may be missing,
    ``y`` only if ``target`` and every other member are missing too.

    Args:
        path: The file.
        interface: The model's.
        preprocessing: For uint8 images.
        max_bytes: Neither the arrays in the file nor the samples may need more.

    Raises:
        DataError: The archive is damaged, hostile, too large, or its arrays do not fit the model
            or each other.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members, others = _members(archive, path, max_bytes)
            x_member = members["x"]
            ready = _is_ready(x_member, interface)
            if ready:
                _check_shape(x_member, interface)
            elif x_member.dtype != np.uint8:
                kind = interface.input_dtype if interface.takes_integers else "float"
                raise DataError(
                    f"{x_member.where}: dtype {x_member.dtype}; expected {kind} (passed to the "
                    "model as it is) or uint8 (images)"
                )
            labels = {
                name: _labels(archive, name, members[name], x_member)
                for name in ("y", "target")
                if name in members
            }
            x = load_member(archive, x_member)
    except (zipfile.BadZipFile, NotImplementedError) as error:  # the latter: of a later zip version
        raise DataError(f"{path}: not a .npz archive: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    notes = [f"{path.name}: ignored {', '.join(others)}"] if others else []
    warnings = []
    if ready:
        kind = "float" if x.dtype.kind == "f" else str(x.dtype)
        x = _cast(x, interface, x_member.where)
        notes.append(f"x is {kind}: passed to the model as it is, no preprocessing")
        if preprocessing != Preprocessing():
            warnings.append(f"{x_member.where} is {kind}: the preprocessing options do not apply")
    else:
        x = _images(x, interface, preprocessing, max_bytes, x_member.where)
        notes += preprocessing.notes
    return Samples(
        x=x,
        y=labels.get("y"),
        target=labels.get("target"),
        source=str(path),
        preprocessing=None if ready else preprocessing.describe(interface.input_dtype),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _members(
    archive: zipfile.ZipFile, path: Path, max_bytes: int
) -> tuple[dict[str, ArrayMember], list[str]]:
    infos = archive.infolist()
    counts = Counter(info.filename for info in infos)
    for name, count in counts.items():
        if count > 1:
            raise DataError(f"{path}: member {name!r} is there {count} times")
    by_name = {info.filename.removesuffix(".npy"): info for info in infos}
    others = sorted(by_name.keys() - set(_MEMBERS))
    if "x" not in by_name:
        raise DataError(f"{path}: no member 'x'{_hint('x', others)}")
    if "y" not in by_name and (others or "target" in by_name):
        raise DataError(f"{path}: no member 'y' with the true labels{_hint('y', others)}")
    wanted = {name: by_name[name] for name in _MEMBERS if name in by_name}
    total = sum(info.file_size for info in wanted.values())
    if total > max_bytes:
        raise DataError(f"{path}: {total} bytes unpacked, over the limit of {max_bytes}")
    members = {
        name: open_member(archive, info, f"{path}: {name!r}") for name, info in wanted.items()
    }
    return members, others


def _hint(name: str, others: list[str]) -> str:
    if not others:
        return "" if name == "x" else "; 'target' needs it"
    folded = {other.casefold(): other for other in others}
    usual = [folded[one] for one in (name, *_OTHER_NAMES[name]) if one in folded]
    close = usual[:1] or others[:4]
    return f"; it has {', '.join(repr(other) for other in close)}: rename it"


def _is_ready(x: ArrayMember, interface: Interface) -> bool:
    """Whether an array is the model's input already; if not, it can only be images."""
    if not interface.takes_integers:
        return x.dtype.kind == "f" and x.dtype.itemsize <= 8
    if x.dtype.kind not in "iu":
        return False
    return x.dtype != np.uint8 or len(x.shape) < 3 or not takes_images(interface)


def _check_shape(member: ArrayMember, interface: Interface) -> None:
    wanted, got = interface.input_shape, member.shape
    if len(got) == len(wanted) and all(
        axis in (None, length) for axis, length in zip(wanted[1:], got[1:], strict=True)
    ):
        return
    expected = ", ".join(["n", *("any" if axis is None else str(axis) for axis in wanted[1:])])
    raise DataError(
        f"{member.where}: shape {got}, the model takes ({expected}); x that is not uint8 images "
        "must be in the model's layout"
    )


def _labels(archive: zipfile.ZipFile, name: str, member: ArrayMember, x: ArrayMember) -> IntArray:
    if member.dtype.kind not in "iu":
        raise DataError(f"{member.where}: dtype {member.dtype}, expected integer class indices")
    one_for_all = name == "target" and member.shape in ((), (1,)) and len(x.shape) > 0
    if not one_for_all and (len(member.shape) != 1 or member.shape[:1] != x.shape[:1]):
        raise DataError(f"{member.where}: shape {member.shape} beside x of shape {x.shape}")
    labels = load_member(archive, member)
    if one_for_all:
        labels = np.full(x.shape[0], labels)
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{member.where}: labels over 2^63")
    return labels.astype(np.int64)


def _cast(x: npt.NDArray[Any], interface: Interface, where: str) -> npt.NDArray[Any]:
    """``x`` in the model's dtype, contiguous.

    Raises:
        DataError: Values overflow it.
    """
    if interface.takes_integers:
        return as_integers(x, interface.input_dtype, where)
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(x.astype(interface.input_dtype, copy=False))
    if result.dtype != x.dtype and result.dtype.itemsize < x.dtype.itemsize:
        overflown = np.isfinite(x) & ~np.isfinite(result)
        if overflown.any():
            raise DataError(f"{where}: values overflow the model's {interface.input_dtype} input")
    return result


def _images(
    x: npt.NDArray[np.uint8],
    interface: Interface,
    preprocessing: Preprocessing,
    max_bytes: int,
    where: str,
) -> npt.NDArray[Any]:
    target = image_input(interface, preprocessing.layout)
    pixels = as_channels_last(x, target, where)
    if math.prod(pixels.shape) == 0:
        raise DataError(f"{where}: empty, shape {x.shape}")

    def images() -> Iterator[tuple[str, Image.Image]]:
        for index, sample in enumerate(pixels):
            flat = sample[..., 0] if sample.shape[-1] == 1 else sample
            yield f"{where}[{index}]", Image.fromarray(np.ascontiguousarray(flat))

    return assemble_images(
        images(), len(pixels), target, interface.input_dtype, preprocessing, max_bytes
    )
