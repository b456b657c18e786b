"""The attacks, by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.defence.attacks.attack import Attack, Shape
from benchmarks.defence.attacks.clean_label import label_consistent, sine
from benchmarks.defence.attacks.everywhere import blended, chessboard, quantised, warped
from benchmarks.defence.attacks.patches import all_to_all, all_to_one, one_to_one, several
from benchmarks.defence.attacks.specific import sample_specific

# What each takes: the shape of an image, the number of classes, the share of poison or None.
ATTACKS: dict[str, Callable[[Shape, int, float | None], Attack]] = {
    "badnets": all_to_one,
    "badnets-one-to-one": one_to_one,
    "badnets-all-to-all": all_to_all,
    "x2x": several,
    "blended": blended,
    "chessboard": chessboard,
    "wanet": warped,
    "bpp": quantised,
    "sample-specific": sample_specific,
    "sig": sine,
    "label-consistent": label_consistent,
}
# The same triggers, trained by somebody who knows the defence; see ``training``.
ADAPTIVE = {
    "adaptive-margin": "badnets",
    "adaptive-clipped": "badnets",
    "adaptive-quiet": "badnets",
}
CLEAN = "clean"
NAMES = (*ATTACKS, *ADAPTIVE, CLEAN)


def make(name: str, shape: Shape, classes: int, share: float | None = None) -> Attack | None:
    """An attack on images ``(channels, height, width)``; None for ``"clean"``."""
    if name == CLEAN:
        return None
    return ATTACKS[ADAPTIVE.get(name, name)](shape, classes, share)


__all__ = ["ADAPTIVE", "ATTACKS", "CLEAN", "NAMES", "Attack", "make"]
