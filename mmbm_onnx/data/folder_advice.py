"""What is probably wrong with a directory of class folders, and the way out.

Looked at only where reading failed or where names may mean another order than they are taken in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from mmbm_onnx.data.images import is_image_name

_JUNK = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",  # macOS
        "__macosx",
        "@eadir",  # a network storage's thumbnails
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
_PARTS = frozenset(
    {
        *("train", "training", "trainset", "train_set", "val", "valid", "validation", "dev"),
        *("test", "testing", "testset", "test_set", "eval", "holdout", "held-out", "held_out"),
    }
)
_PICTURES = frozenset(
    {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".pgm", ".ppm", ".svg", ".tif", ".tiff"}
)
_ARCHIVES = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"})
_ALIKE = 0.85
_MOST = 8


def is_ignored(path: Path) -> bool:
    """Whether an entry is hidden, left by a desktop, or text beside the data."""
    name = path.name.lower()
    return (
        name.startswith((".", "readme", "license"))
        or name in _JUNK
        or path.suffix.lower() in (".txt", ".md")
    )


def wrong_level(root: Path, folders: Sequence[Path], classes: int) -> str | None:
    """What to say where folders hold classes instead of being them; None where they do not.

    Args:
        root: The directory.
        folders: Those in it.
        classes: How many the model has.
    """
    names = [folder.name for folder in folders]
    above = [folder for folder in folders if _folders_in(folder) and not _holds_images(folder)]
    if not above:
        return None
    if all(name.lower() in _PARTS for name in names):
        verb = "is a part" if len(names) == 1 else "are parts"
        return (
            f"{root}: {_listed(names)} {verb} of a data set, not a class, and the class folders "
            f"are inside; give one part, such as {above[0]}"
        )
    if len(folders) == 1:
        return f"{root}: its only folder holds folders itself; give {folders[0]} instead"
    if any(map(_holds_images, folders)):
        return None
    # One folder in each of as many as classes is a class with its images too deep.
    inside = {folder: len(_folders_in(folder)) for folder in above}
    if len(folders) == classes and max(inside.values()) == 1:
        return None
    likely = next((folder for folder in above if inside[folder] == classes), above[0])
    return (
        f"{root}: {_listed([folder.name for folder in above])} hold folders and no images, so they "
        f"are no classes: that is a level too much; give one, such as {likely}"
    )


def one_of_several(root: Path, classes: int) -> Path | None:
    """The directory above, where its folders of images are as many as the classes: the one that was
    given is a class then, and not the clean set.

    Args:
        root: A directory of images.
        classes: How many the model has.
    """
    above = root.resolve().parent
    folders = _folders_in(above)
    return above if len(folders) == classes and all(map(_holds_images, folders)) else None


def wrong_count(folders: Sequence[Path], classes: int) -> str:
    """Why there may be more or fewer folders than classes, and the way out."""
    names = [folder.name for folder in folders]
    numbers = [name for name in names if re.fullmatch(r"[0-9]+", name)]
    odd = [name for name in names if name not in numbers]
    if len(odd) < len(numbers):
        return f"all names but {_listed(odd)} are class indices: move what is no class away"
    found = []
    if len(folders) > classes:
        if pair := _alike(names):
            found.append(f"{pair[0]!r} and {pair[1]!r} may be one class: merge them if so")
        if empty := [folder.name for folder in folders if not _holds_images(folder)]:
            found.append(f"no images are in {_listed(empty)}: move away what is no class")
        found = found or [f"move away what is no class of {_listed(names)}"]
    elif len(folders) == 1 and _holds_images(folders[0]):
        found.append(
            f"give {folders[0]} to take its images without labels, or sort them into one folder "
            "per class"
        )
    else:
        found.append("add empty folders for missing classes")
    return f"{'; '.join(found)}; or name each folder by its class index"


def wrong_index(names: Sequence[str], classes: int) -> str:
    """The way out where a class index is out of range."""
    numbers = sorted(int(name) for name in names if re.fullmatch(r"[0-9]{1,9}", name))
    if len(numbers) == len(names) and numbers[0] == 1 and numbers[-1] == classes:
        return "; folders are numbered from 1, classes from 0: rename each to one less, 1 first"
    return "; folders of numbers are class indices, counted from 0"


def doubtful_order(names: Sequence[str]) -> list[str]:
    """A warning where names hold numbers whose order is not that of the names.

    Args:
        names: Of the class folders, in the order that they are taken in.
    """
    for pattern in (r"(\D*)([0-9]{1,9})", r"()([0-9]{1,9})\D.*"):
        matches = [re.fullmatch(pattern, name) for name in names]
        found = [(match[1], int(match[2])) for match in matches if match is not None]
        if len(found) < len(names) or len({prefix for prefix, _ in found}) != 1:
            continue
        numbers = [number for _, number in found]
        for index in range(len(numbers) - 1):
            if numbers[index] > numbers[index + 1]:
                first, second = names[index], names[index + 1]
                return [
                    f"classes are in the order of names, as text: {first!r} is class {index}, "
                    f"{second!r} is class {index + 1}; name folders by class index if the model "
                    "counts otherwise"
                ]
    return []


def no_image(path: Path) -> str:
    """The way out where a file is no image that is read."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return "convert it to PNG"
    return stray(path) if suffix in (*_ARCHIVES, ".npy", ".npz") else "remove it"


def stray(path: Path) -> str:
    """The way out where a file does not belong."""
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        return "unpack it, and move it away"
    if suffix in (".npy", ".npz"):
        return "arrays go into one .npz with x and y, without folders beside it"
    return "move it away"


def _alike(names: Sequence[str]) -> tuple[str, str] | None:
    """Two names that are probably meant to be one: those of other numbers are not."""
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            if re.findall(r"\d+", first) != re.findall(r"\d+", second):
                continue
            if difflib.SequenceMatcher(None, _plain(first), _plain(second)).ratio() >= _ALIKE:
                return first, second
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _holds_images(folder: Path) -> bool:
    try:
        return any(is_image_name(entry) for entry in folder.iterdir() if not is_ignored(entry))
    except OSError:
        return False


def _folders_in(folder: Path) -> list[Path]:
    try:
        return [e for e in folder.iterdir() if e.is_dir() and not is_ignored(e)]
    except OSError:
        return []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST])
    return f"{shown}, ..." if len(names) > _MOST else shown
