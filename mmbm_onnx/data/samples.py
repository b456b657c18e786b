"""Clean and triggered sets from wherever the user keeps them."""

from __future__ import annotations

from pathlib import Path

from mmbm_onnx.data.archive import read_archive
from mmbm_onnx.data.folder import read_folder
from mmbm_onnx.data.folder_advice import is_ignored
from mmbm_onnx.data.images import is_image_name
from mmbm_onnx.data.preprocessing import Preprocessing
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import Interface, Samples

MAX_BYTES = 8 << 30
"""Default limit, in bytes, on what is unpacked from a file and on the samples in memory."""


def read_samples(
    path: str | Path,
    interface: Interface,
    preprocessing: Preprocessing | None = None,
    *,
    triggered: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Samples:
    """Read a set of samples as a model takes them.

    Args:
        path: A directory with one folder of images per class, a directory that holds exactly one
            ``.npz``, or the ``.npz``; see `read_folder` and `read_archive`.
        interface: The model's.
        preprocessing: How images become samples; None is pixels divided by 255.
        triggered: Whether each sample must come with its true label and the attacker's class,
            which only an ``.npz`` can hold.
        max_bytes: Limit on what is unpacked and on what the samples need.

    Raises:
        DataError: Nothing is there, or it cannot be read or does not fit the model.
    """
    path = Path(path)
    preprocessing = preprocessing or Preprocessing()
    if not path.exists():
        raise DataError(f"{path}: no such file or directory")
    archive = _archive_in(path) if path.is_dir() else path
    if archive is None:
        if triggered:
            raise DataError(
                f"{path}: a triggered set is an .npz with x, y (true labels) and target (the "
                "attacker's class), not a folder of images"
            )
        return read_folder(path, interface, preprocessing, max_bytes)
    if archive.suffix.lower() != ".npz" or not archive.is_file():
        raise DataError(f"{archive}: expected a directory of class folders or an .npz file")
    samples = read_archive(archive, interface, preprocessing, max_bytes)
    if triggered and samples.target is None:
        raise DataError(
            f"{archive}: no member 'target' with the attacker's class; a triggered set needs it"
        )
    return samples


def is_sample_file(path: Path) -> bool:
    """Whether a file's name is that of an image or an archive, as clean sets are made of."""
    return is_image_name(path) or path.suffix.lower() == ".npz"


def _archive_in(folder: Path) -> Path | None:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_ignored(entry))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    archives = [entry for entry in entries if entry.suffix.lower() == ".npz" and entry.is_file()]
    if not archives:
        return None
    if len(archives) > 1:
        raise DataError(
            f"{folder}: holds {len(archives)} .npz files ({archives[0].name}, "
            f"{archives[1].name}, ...); name the one"
        )
    folders = [entry for entry in entries if entry.is_dir()]
    if folders:
        raise DataError(
            f"{folder}: holds both {archives[0].name} and folders ({folders[0].name}, ...); "
            "name the .npz, or keep them apart"
        )
    return archives[0]
