"""The attacks, by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.defence.attacks.attack import Attack, Shape
from benchmarks.defence.attacks.clean_label import label_consistent, sine
from benchmarks.defence.attacks.everywhere import blended, chessboard, quantised, warped
from benchmarks.defence.attacks.patches import all_to_all, all_to_one, one_to_one, several
from benchmarks.defence.attacks.specific import sample_specific

# What each takes: the shape of an image, the number of classes, the share of poison; and that share
# where nothing else is said.
ATTACKS: dict[str, tuple[Callable[[Shape, int, float], Attack], float]] = {
    "badnets": (all_to_one, 0.05),
    "badnets-one-to-one": (one_to_one, 0.05),
    "badnets-all-to-all": (all_to_all, 0.2),
    "x2x": (several, 0.1),
    "blended": (blended, 0.05),
    "chessboard": (chessboard, 0.05),
    "wanet": (warped, 0.1),
    "bpp": (quantised, 0.2),
    "sample-specific": (sample_specific, 0.1),
    "sig": (sine, 0.8),
    "label-consistent": (label_consistent, 0.8),
}
# The same triggers, trained by somebody who knows the defence; see ``adaptive``.
ADAPTIVE = {
    "adaptive-margin": "badnets",
    "adaptive-clipped": "badnets",
    "adaptive-quiet": "badnets",
    "adaptive-evidence": "badnets",
}
CLEAN = "clean"
NAMES = (*ATTACKS, *ADAPTIVE, CLEAN)


def make(name: str, shape: Shape, classes: int, share: float | None = None) -> Attack | None:
    """An attack on images ``(channels, height, width)``; None for ``"clean"``."""
    if name == CLEAN:
        return None
    build, usual = _entry(name)
    return build(shape, classes, usual if share is None else share)


def usual_share(name: str) -> float:
    """The share of poison of an attack where nothing else is said."""
    return _entry(name)[1]


def module_of(name: str) -> str:
    """Name of the module that an attack's trigger comes from."""
    return _entry(name)[0].__module__


def _entry(name: str) -> tuple[Callable[[Shape, int, float], Attack], float]:
    return ATTACKS[ADAPTIVE.get(name, name)]


__all__ = ["ADAPTIVE", "ATTACKS", "CLEAN", "NAMES", "Attack", "make", "module_of", "usual_share"]
