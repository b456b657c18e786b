"""The smallest pattern per class that, added to whatever clean sample, drives it to that class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import margins, pattern_gradient
from mmbm_onnx.scanning.geometry import Geometry, as_factors, euclidean
from mmbm_onnx.scanning.settings import ScanSettings

_ENOUGH = 0.6  # mean clean margins: a sample driven this far pulls a pattern no further
_MOMENTUM = 0.7
_CHANGE = 0.12  # of a size per step at first, along half a cosine down to _LEAST
_LEAST = 0.005
_LAST = 0.08  # share of the first step's length that the last one has
_TAIL = 0.15  # of the steps: a pattern's size is its mean over them


@dataclass(frozen=True, slots=True)
class Flips:
    """What a pattern does to samples that it was not made from.

    Attributes:
        samples: Those it drives from another class to its own, by index, int64 ``(m,)``.
        others: How many are of other classes.
    """

    samples: Tensor
    others: int

    @property
    def share(self) -> float:
        """Share of the samples of other classes that it drives; 0 where there are none."""
        return len(self.samples) / max(1, self.others)


@dataclass(frozen=True, slots=True)
class Patterns:
    """One pattern per class.

    Attributes:
        classes: int64 ``(c,)``, on the CPU.
        patterns: ``(c, *shape)``, to be added to points; on the classifier's device.
        sizes: ``(c,)``, in the unit of the geometry, on the CPU.
    """

    classes: Tensor
    patterns: Tensor
    sizes: Tensor


class Search:
    """Looks for small patterns in one network.

    A pattern moves up the gradient of its class's margin on fresh clean samples, and its size sinks
    whenever it drives enough of them to the class, and grows when not: direction and norm are
    decoupled as in Rony et al. 2019 (arXiv 1811.09600), here for one pattern on many samples.
    A trigger is such a pattern, and a class that a backdoor leads to is reached with less. Of
    patterns from several starts the smallest counts: a trigger is found by chance.

    Args:
        classifier: The network.
        clean: Clean samples; their range is that of valid inputs.
        decisions: The network's, int64 ``(n,)``.
        settings: All but those of noise.
        generator: Source of randomness, on the CPU.
        low, high: Range of valid inputs.
        progress: Called after every step.
    """

    def __init__(
        self,
        classifier: Classifier,
        clean: Points,
        decisions: Tensor,
        settings: ScanSettings,
        generator: torch.Generator,
        *,
        low: float,
        high: float,
        progress: Callable[[], None] | None = None,
    ) -> None:
        self._classifier = classifier
        self._clean = clean
        self._decisions = decisions.cpu()
        self._settings = settings
        self._generator = generator
        self._low, self._high = low, high
        self._progress = progress
        self._enough = _ENOUGH * self._margin_unit()

    def run(self, classes: Tensor, geometry: Geometry) -> Patterns:
        """The smallest patterns of classes, int64 ``(c,)``, by one norm.

        Raises:
            ModelError: No gradient reaches the input.
        """
        steps, starts = self._settings.steps, self._settings.starts
        own, classes = classes, classes.repeat(starts)
        x = self._clean.values
        reach = self._high - self._low
        sizes = torch.full((len(classes),), geometry.start).to(x)
        noise = torch.randn((len(classes), *x.shape[1:]), generator=self._generator).to(x)
        patterns = geometry.fit(noise * (0.01 * reach), sizes)
        momentum = torch.zeros_like(patterns)
        tail: list[Tensor] = []
        last = min(steps - 1, math.ceil((1 - _TAIL) * steps))
        for step in range(steps):
            gradient, share = self._gradient(patterns, classes)
            slower = 0.5 * (1 + math.cos(math.pi * step / steps))
            change = _CHANGE * slower + _LEAST
            sizes = sizes * torch.where(share >= self._settings.goal, 1 - change, 1 + change)
            momentum = _MOMENTUM * momentum + unit(gradient)
            lengths = geometry.step(sizes) * (slower + _LAST)
            patterns = patterns + as_factors(lengths, patterns) * unit(momentum)
            patterns = geometry.fit(patterns.clamp(-reach, reach), sizes)
            if step >= last:
                tail.append(sizes.log())
            if self._progress is not None:
                self._progress()
        sizes = torch.stack(tail).mean(0).exp()
        best = sizes.reshape(starts, len(own)).argmin(0) * len(own)
        best += torch.arange(len(own), device=best.device)
        return Patterns(own, geometry.fit(patterns, sizes)[best], sizes[best].cpu())

    @torch.no_grad()
    def flips(self, found: Patterns, samples: Points, decisions: Tensor) -> list[Flips]:
        """What patterns do to samples.

        Args:
            found: The patterns.
            samples: Such as were not used in looking for them.
            decisions: The network's of them, int64 ``(n,)``.
        """
        results = []
        for target, pattern in zip(found.classes.tolist(), found.patterns, strict=True):
            others = torch.nonzero(decisions.cpu() != target).flatten()
            driven = [others[:0]]
            for index in torch.split(others, self._settings.batch_size) if len(others) else ():
                attacked = self._attacked(samples[index.to(pattern.device)], pattern)
                driven.append(index[self._classifier.logits(attacked).argmax(1).cpu() == target])
            results.append(Flips(torch.cat(driven), len(others)))
        return results

    def _gradient(self, patterns: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Of each pattern, of the margins it reaches, and the share of samples that it drives."""
        per = self._settings.samples_per_pattern
        together = max(1, 2 * self._settings.batch_size // per)
        gradients, shares = [], []
        for start in range(0, len(patterns), together):
            part = slice(start, start + together)
            targets = classes[part].repeat_interleave(per)
            clean = self._clean[self._others(targets).to(patterns.device)]
            moving = patterns[part].clone().requires_grad_(True)
            attacks = self._attacked(clean, moving.repeat_interleave(per, 0))
            gradient, reached = pattern_gradient(
                self._classifier, attacks, moving, targets, self._enough
            )
            gradients.append(gradient)
            shares.append((reached > 0).float().reshape(-1, per).mean(1))
        return torch.cat(gradients), torch.cat(shares).to(patterns)

    def _attacked(self, points: Points, patterns: Tensor) -> Points:
        return points.at((points.values + patterns).clamp(self._low, self._high))

    def _others(self, targets: Tensor) -> Tensor:
        """Index of a random sample for each target, of another class where a few draws find one."""
        found = torch.randint(len(self._clean), targets.shape, generator=self._generator)
        for _ in range(5):
            again = torch.randint(len(self._clean), targets.shape, generator=self._generator)
            found = torch.where(self._decisions[found] == targets, again, found)
        return found

    @torch.no_grad()
    def _margin_unit(self) -> float:
        sums = 0.0
        for start in range(0, len(self._clean), self._settings.batch_size):
            part = slice(start, start + self._settings.batch_size)
            logits = self._classifier.logits(self._clean[part])
            sums += float(margins(logits, self._decisions[part].to(logits.device)).sum())
        return sums / len(self._clean)


def unit(patterns: Tensor) -> Tensor:
    """Patterns of Euclidean norm 1."""
    return patterns / as_factors(euclidean(patterns), patterns)
