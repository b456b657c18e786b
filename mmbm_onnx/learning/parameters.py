"""The bounds as the optimiser sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmbm_onnx.learning.settings import Settings
from mmbm_onnx.learning.statistics import ActivationStatistics
from mmbm_onnx.types import Bounds, Site

_SMALLEST = 1e-3  # of a site's highest start: what a channel gets that is never active
_FARTHEST = math.log(1e3)  # a bound stays within this factor of its start
_POSITIVE = 1e-6  # where linear bounds end


class BoundParameters:
    """Bounds at all sites, positive at every step.

    A channel that is silent on clean data starts (and, under a logarithmic scale, is held) near
    zero: clean data never needs it, so whatever wakes it is suspect.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        statistics: Mapping[str, ActivationStatistics],
        settings: Settings,
    ) -> None:
        """
        Args:
            sites: Where bounds go.
            statistics: Of clean activations at each; their shapes decide the bounds' shapes.
            settings: ``start``, ``start_value`` and ``scale``.
        """
        self._logarithmic = settings.scale == "logarithmic"
        self.start = {
            site.tensor: _start(statistics[site.tensor], settings, site.upper) for site in sites
        }
        self._maxima = [statistics[site.tensor].maximum for site in sites]
        self.trained = [
            (torch.zeros_like(start) if self._logarithmic else start.clone()).requires_grad_(True)
            for start in self.start.values()
        ]

    def bounds(self) -> dict[str, Tensor]:
        """The bounds, differentiable in ``trained``; shapes ``(channels,)`` or ``()``."""
        if self._logarithmic:
            return {
                name: start * value.exp()
                for (name, start), value in zip(self.start.items(), self.trained, strict=True)
            }
        return dict(zip(self.start, self.trained, strict=True))

    @torch.no_grad()
    def project(self) -> None:
        """Put what a step left outside the allowed range back on its edge."""
        for value in self.trained:
            if self._logarithmic:
                value.clamp_(-_FARTHEST, _FARTHEST)
            else:
                value.clamp_(min=_POSITIVE)

    @torch.no_grad()
    def multiply(self, factor: float) -> None:
        """Multiply all bounds, as far as their range allows."""
        for value in self.trained:
            if self._logarithmic:
                value.add_(math.log(factor))
            else:
                value.mul_(factor)
        self.project()

    @torch.no_grad()
    def loosen(self, snapshot: Sequence[Tensor], share: float) -> None:
        """Move the bounds of an earlier point that share of the way, on a scale of logarithms, to
        their channels' clean maxima, from where on a bound cuts nothing off that clean samples
        need; bounds above stay."""
        self.restore(snapshot)
        bounds = list(self.bounds().values())
        for value, start, bound, maximum in zip(
            self.trained, self.start.values(), bounds, self._maxima, strict=True
        ):
            wanted = bound * (maximum / bound).clamp_min(1) ** share
            value.copy_((wanted / start).log() if self._logarithmic else wanted)
        self.project()

    def snapshot(self) -> list[Tensor]:
        """What ``restore`` takes to come back to this point."""
        return [value.detach().clone() for value in self.trained]

    @torch.no_grad()
    def restore(self, snapshot: Sequence[Tensor]) -> None:
        """Come back to an earlier point."""
        for value, earlier in zip(self.trained, snapshot, strict=True):
            value.copy_(earlier)

    @torch.no_grad()
    def result(self) -> Bounds:
        """The bounds as float32 arrays."""
        arrays = {name: bound.cpu().numpy() for name, bound in self.bounds().items()}
        return Bounds({name: np.array(bound, dtype=np.float32) for name, bound in arrays.items()})


def _start(found: ActivationStatistics, settings: Settings, upper: float | None) -> Tensor:
    if settings.start == "constant":
        return torch.full_like(found.mean, settings.start_value)
    if settings.start == "maximum":
        start = settings.start_value * found.maximum
    else:
        start = found.mean + settings.start_value * found.std
    highest = float(start.max())
    floor = _SMALLEST * highest if highest > 0 else 1.0  # 1: the whole site is silent
    start = start.clamp_min(floor)
    return start if upper is None else start.clamp_max(upper)
