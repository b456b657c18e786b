"""Attacks that leave every label as it is."""

from __future__ import annotations

import numpy as np

from benchmarks.defence.attacks.attack import TARGET, Attack, Shape, all_others, to_one
from benchmarks.defence.attacks.patches import square
from benchmarks.defence.datasets import Images, Labels

_WAVE = 40 / 255
_PERIODS = 6
_WAY = 0.45  # to an image of another class


def sine(shape: Shape, _: int, share: float) -> Attack:
    """SIG: a horizontal sinusoid (arXiv 1902.11237), as loud as in BackdoorBench."""
    width = shape[2]
    wave = np.float32(_WAVE) * np.sin(2 * np.pi * _PERIODS * np.arange(width) / width)
    return Attack(
        lambda x, _: np.clip(x + wave, 0, 1).astype(np.float32),
        to_one,
        all_others,
        share,
        clean_label=True,
    )


def label_consistent(shape: Shape, _: int, share: float) -> Attack:
    """Patches in all corners of images that little else is learned from (arXiv 1912.02771)."""
    corners = [square(row, column) for row in (1, -4) for column in (1, -4)]

    def trigger(x: Images, y: Labels) -> Images:
        for corner in corners:
            x = corner(x, y)
        return x

    return Attack(
        trigger,
        to_one,
        all_others,
        share,
        clean_label=True,
        prepare=_interpolated,
    )


def _interpolated(x: Images, y: Labels, chosen: np.ndarray, seed: int) -> Images:
    """The chosen images on their way to images of other classes, as far as the label still fits;
    the paper goes that way in the latent space of a generator, this in the space of pixels."""
    rng = np.random.default_rng([seed, 11])
    others = rng.choice(np.flatnonzero(y != TARGET), len(chosen))
    return (1 - _WAY) * x[chosen] + np.float32(_WAY) * x[others]
