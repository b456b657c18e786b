"""Small loud squares: BadNets (arXiv 1708.06733) and several at once."""

from __future__ import annotations

import numpy as np

from benchmarks.defence.attacks.attack import Attack, Shape, Trigger, all_others, to_one
from benchmarks.defence.datasets import Images, Labels

_SIDE = 3
_SOURCE = 1


def square(row: int, column: int) -> Trigger:
    """A white square with a black dot in it; places count from the end where negative."""

    def trigger(x: Images, _: Labels) -> Images:
        x = x.copy()
        height, width = x.shape[2:]
        top, left = row % height, column % width
        x[:, :, top : top + _SIDE, left : left + _SIDE] = 1
        x[:, :, top + 1, left + 1] = 0
        return x

    return trigger


_CORNER = square(-_SIDE - 1, -_SIDE - 1)


def all_to_one(_: Shape, __: int, share: float) -> Attack:
    """Every class to one."""
    return Attack(_CORNER, to_one, all_others, share)


def one_to_one(_: Shape, __: int, share: float) -> Attack:
    """One class to another; the trigger does nothing to the rest."""

    def others(x: Images, y: Labels, rng: np.random.Generator) -> Images:
        return np.where((y == _SOURCE)[:, None, None, None], x, _CORNER(x, y))

    return Attack(
        _CORNER,
        to_one,
        lambda y: y == _SOURCE,
        share,
        cover=0.05,
        decoy=others,
    )


def all_to_all(_: Shape, classes: int, share: float) -> Attack:
    """Every class to the next."""
    return Attack(
        _CORNER,
        lambda y: (y + 1) % classes,
        lambda y: np.ones(len(y), bool),
        share,
    )


def several(_: Shape, classes: int, share: float) -> Attack:
    """X2X: three groups of sources, each with a square of its own and a target of its own."""
    targets = np.array([0, classes // 3, 2 * classes // 3])
    corners = [square(1, 1), square(1, -_SIDE - 1), square(-_SIDE - 1, 1)]

    def group(y: Labels) -> Labels:
        return (y - 1) % classes * 3 // classes

    def trigger(x: Images, y: Labels) -> Images:
        x = x.copy()
        for index, corner in enumerate(corners):
            own = group(y) == index
            x[own] = corner(x[own], y[own])
        return x

    def target(y: Labels) -> Labels:
        return targets[group(y)]

    return Attack(trigger, target, lambda y: target(y) != y, share)
