"""Accuracy of a bounded network on samples that bounds are not learned on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.types import Samples

_MOST = 1000  # samples
_CHANCE = 1  # sample that may go wrong unnoticed, lest one of few decides


class Judge:
    """Judges by at most 1,000 samples, drawn from more. They stay on the CPU, batches move.

    Attributes:
        count: Number of samples that the original gets right, at least 1.

    Args:
        classifier: The network.
        samples: Without labels, the network's own decisions are what is right.
        batch_size: Samples per forward pass.
        seed: Of the draw.
    """

    def __init__(
        self, classifier: Classifier, samples: Samples, batch_size: int, seed: int
    ) -> None:
        samples = samples.at_most(_MOST, seed)
        self._classifier = classifier
        self._x = torch.from_numpy(np.ascontiguousarray(samples.x))
        self._batch_size = batch_size
        decisions = self._decisions({})
        self._answers = decisions if samples.y is None else torch.from_numpy(samples.y)
        self.count = max(1, int((decisions == self._answers).sum()))

    def accuracy(self, bounds: Mapping[str, Tensor]) -> float:
        """Share of what the original gets right that the bounded network gets right; above 1 where
        it is better. A single sample lost is none."""
        right = int((self._decisions(bounds) == self._answers).sum())
        if self.count - right <= _CHANCE:
            return max(1.0, right / self.count)
        return right / self.count

    def _decisions(self, bounds: Mapping[str, Tensor]) -> Tensor:
        return _decisions(self._classifier, self._x, bounds, self._batch_size)


class Mistakes:
    """Samples that the original gets wrong. What bounds put right of them belongs to a bounded
    network's accuracy: where they change decisions that hang by a hair, as many get right as wrong.

    Args:
        classifier: The network.
        x: The samples, ``(n, ...)``, n may be 0; they stay on the CPU, batches move.
        labels: What is right, ``(n,)`` int64.
        batch_size: Samples per forward pass.
    """

    def __init__(self, classifier: Classifier, x: Tensor, labels: Tensor, batch_size: int) -> None:
        self._classifier = classifier
        self._x = x.cpu()
        self._labels = labels.cpu()
        self._batch_size = batch_size

    def righted(self, bounds: Mapping[str, Tensor]) -> int:
        """How many the bounded network gets right."""
        if not len(self._x):
            return 0
        decisions = _decisions(self._classifier, self._x, bounds, self._batch_size)
        return int((decisions == self._labels).sum())


@torch.no_grad()
def _decisions(
    network: Classifier, x: Tensor, bounds: Mapping[str, Tensor], batch_size: int
) -> Tensor:
    parts = [
        network.logits(part.to(network.device, network.dtype), bounds).argmax(1).cpu()
        for part in torch.split(x, batch_size)
    ]
    return torch.cat(parts)
