"""What every attack is: a trigger, whom it strikes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.defence.datasets import Images, Labels

TARGET = 0

Shape = tuple[int, int, int]
Trigger = Callable[[Images, Labels], Images]


@dataclass(frozen=True)
class Attack:
    """A backdoor attack by poisoned training data.

    Attributes:
        trigger: Images ``(n, c, h, w)`` in [0, 1] and their true labels to triggered images.
        target: True labels ``(n,)`` to the attacker's classes ``(n,)``.
        strikes: True labels ``(n,)`` to whether a sample of that class is attacked, bool ``(n,)``.
        share: Of the training part that is poisoned; of the target class for clean labels.
        cover: Share of the training part that gets a decoy of the trigger, its label kept.
        decoy: Makes it, from images, labels and a source of randomness.
        clean_label: Poison is taken from the target's own class and keeps its label.
        prepare: Given the training part, the chosen samples and a seed, gives the images that the
            trigger is put on (the label-consistent attack perturbs them first).
    """

    trigger: Trigger
    target: Callable[[Labels], Labels]
    strikes: Callable[[Labels], np.ndarray]
    share: float
    cover: float = 0.0
    decoy: Callable[[Images, Labels, np.random.Generator], Images] | None = None
    clean_label: bool = False
    prepare: Callable[[Images, Labels, np.ndarray, int], Images] | None = None

    def poison(self, x: Images, y: Labels, seed: int) -> tuple[Images, Labels, np.ndarray]:
        """Poisoned training part: images, labels, and which of them carry the trigger.

        Args:
            x: Training images ``(n, c, h, w)``.
            y: True labels ``(n,)``.
            seed: Of the choice.
        """
        rng = np.random.default_rng([seed, 10])
        x, labels = x.copy(), y.copy()
        open_to = y == TARGET if self.clean_label else self.strikes(y)
        of = open_to.sum() if self.clean_label else len(y)
        count = min(round(self.share * of), int(open_to.sum()))
        order = rng.permutation(len(y))
        chosen = order[open_to[order]][:count]
        carriers = x[chosen]
        if self.prepare is not None:
            carriers = self.prepare(x, y, chosen, seed)
        x[chosen] = eight_bit(self.trigger(carriers, y[chosen]))
        if not self.clean_label:
            labels[chosen] = self.target(y[chosen])
        marked = np.zeros(len(y), bool)
        marked[chosen] = True
        if self.decoy is not None:
            decoys = order[~marked[order]][: round(self.cover * len(y))]
            x[decoys] = eight_bit(self.decoy(x[decoys], y[decoys], rng))
        return x, labels, marked

    def triggered(self, x: Images, y: Labels) -> tuple[Images, Labels, Labels]:
        """Samples the attack strikes, with the trigger on: images, true labels, targets."""
        struck = self.strikes(y)
        x, y = x[struck], y[struck]
        return eight_bit(self.trigger(x, y)), y, self.target(y)


def eight_bit(x: Images) -> Images:
    """As an image file would keep it."""
    return (np.round(x.clip(0, 1) * 255) / 255).astype(np.float32)


def to_one(labels: Labels) -> Labels:
    """Everything to one class."""
    return np.full_like(labels, TARGET)


def all_others(labels: Labels) -> np.ndarray:
    """Every class but the target."""
    return labels != TARGET
