"""Where attacks move: a network's samples, or what integer ones are embedded as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Points:
    """Values that gradients flow to, one per sample.

    Attributes:
        values: Floating point, ``(n, ...)``: the samples themselves, or, of a model that takes
            integers, its tensor ``Interface.start``.
        samples: The integers ``(n, ...)`` that everything else in the graph is computed from, such
            as a mask; None where the values are the samples.
    """

    values: Tensor
    samples: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Points:
        samples = None if self.samples is None else self.samples[index]
        return Points(self.values[index], samples)

    def at(self, values: Tensor) -> Points:
        """Points of the same samples, elsewhere."""
        return Points(values, self.samples)

    def split(self, size: int) -> list[Points]:
        """Parts of at most ``size``, in order."""
        return [self[start : start + size] for start in range(0, len(self), size)]


def joined(parts: Sequence[Points]) -> Points:
    """Points of several, one after the other."""
    values = torch.cat([part.values for part in parts])
    samples = [part.samples for part in parts if part.samples is not None]
    return Points(values, torch.cat(samples) if samples else None)
