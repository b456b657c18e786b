"""Clean sets as a directory: a folder of images per class, or images alone, without labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mmbm_onnx.data.assemble import assemble_images
from mmbm_onnx.data.folder_advice import (
    doubtful_order,
    is_ignored,
    no_image,
    one_of_several,
    stray,
    wrong_count,
    wrong_index,
    wrong_level,
)
from mmbm_onnx.data.images import SUFFIXES, decode_image, is_image_name
from mmbm_onnx.data.layout import image_input
from mmbm_onnx.data.preprocessing import Preprocessing
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import Interface, Samples

_NOTES_BESIDE = frozenset({".csv", ".html", ".json", ".yaml", ".yml"})


def read_folder(
    root: Path, interface: Interface, preprocessing: Preprocessing, max_bytes: int
) -> Samples:
    """Read ``root/<class>/<image>``, or ``root/<image>`` where there are no folders.

    Folders sorted by name are the class indices, unless every name is a whole number: then those
    are. The first needs exactly one folder per class, else the indices would shift; an empty
    folder keeps its place. Links are followed. Images come in order of class, then file name.
    Images without folders have no labels.

    Args:
        root: The directory.
        interface: The model's, for the input's shape and the number of classes.
        preprocessing: How images become samples.
        max_bytes: The samples may not need more.

    Returns:
        Samples with labels, and with class names unless these are numbers; without either where
        there are no folders.

    Raises:
        DataError: A folder or file does not belong, or an image cannot be read.
    """
    target = image_input(interface, preprocessing.layout)
    folders, files = _class_folders(root, interface.classes)
    labels: list[int] = []
    labelled = _label_folders(root, folders, interface.classes) if folders else []
    for label, folder in labelled:
        inside = _images_in(folder)
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{root}: its class folders hold no images ({_endings()})")
    transparent: list[Path] = []

    def decoded() -> Iterator[tuple[str, Image.Image]]:
        for path in files:
            image, alpha = decode_image(path)
            if alpha:
                transparent.append(path)
            yield str(path), image

    x = assemble_images(
        decoded(), len(files), target, interface.input_dtype, preprocessing, max_bytes
    )
    warnings = []
    if transparent:
        warnings.append(
            f"transparency dropped in {len(transparent)} of {len(files)} images, "
            f"the first is {transparent[0].relative_to(root)}; the colours under it count, give "
            "images without it where that is wrong"
        )
    numbered = all(folder.name.isdecimal() for _, folder in labelled)
    if not numbered:
        warnings += [
            f"{root}: {line}" for line in doubtful_order([folder.name for _, folder in labelled])
        ]
    return Samples(
        x=x,
        y=np.array(labels, np.int64) if folders else None,
        class_names=() if numbered else tuple(folder.name for _, folder in labelled),
        source=str(root),
        preprocessing=preprocessing.describe(interface.input_dtype),
        notes=preprocessing.notes,
        warnings=tuple(warnings),
    )


def _label_folders(root: Path, folders: list[Path], classes: int) -> list[tuple[int, Path]]:
    if problem := wrong_level(root, folders, classes):
        raise DataError(problem)
    names = [folder.name for folder in folders]
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return _numbered(folders, classes)
    if len(folders) != classes:
        raise DataError(
            f"{root}: {len(folders)} class folders for a model of {classes} classes; "
            f"{wrong_count(folders, classes)}"
        )
    return list(enumerate(folders))


def _numbered(folders: list[Path], classes: int) -> list[tuple[int, Path]]:
    by_label: dict[int, Path] = {}
    for folder in folders:
        # Longer numbers are out of range anyway, and slow to convert.
        label = int(folder.name) if len(folder.name) < 20 else -1
        if not 0 <= label < classes:
            raise DataError(
                f"{folder}: class index {folder.name[:20]} is outside the model's 0 to "
                f"{classes - 1}{wrong_index([one.name for one in folders], classes)}"
            )
        if label in by_label:
            raise DataError(
                f"{folder} and {by_label[label]} are both class {label}; merge them into one"
            )
        by_label[label] = folder
    return sorted(by_label.items())


def _class_folders(root: Path, classes: int) -> tuple[list[Path], list[Path]]:
    """The class folders, or, where there are none, the images."""
    folders, images = [], []
    for entry in _entries(root):
        if entry.is_dir():
            folders.append(entry)
        elif is_image_name(entry):
            images.append(_file(entry))
        elif entry.suffix.lower() not in _NOTES_BESIDE:
            raise DataError(f"{entry}: does not belong beside images; {stray(entry)}")
    if not folders and not images:
        raise DataError(f"{root}: neither images, in folders per class, nor one .npz file is in it")
    if folders and images:
        raise DataError(
            f"{images[0]}: an image outside the class folders of {root}; move it into one of them"
        )
    if images and (parent := one_of_several(root, classes)):
        raise DataError(
            f"{images[0]}: an image outside class folders; {root} is one of {classes} folders of "
            f"images, as many as classes: give {parent}"
        )
    return folders, images


def _images_in(folder: Path) -> list[Path]:
    paths = _entries(folder)
    for path in paths:
        if path.is_dir():
            raise DataError(
                f"{path}: a folder inside a class folder; expected images only, move its images up "
                "or it away"
            )
        if not is_image_name(path):
            raise DataError(f"{path}: not an image ({_endings()}); {no_image(path)}")
        _file(path)
    return paths


def _file(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: a broken link or no ordinary file")
    return path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(
            (entry for entry in folder.iterdir() if not is_ignored(entry)),
            key=lambda entry: entry.name,
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))
