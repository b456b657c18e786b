"""One look at a network: the smallest patterns of every class by every norm, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.scanning.geometry import Gathered, Geometry, Norm, Spread, Waves
from mmbm_onnx.scanning.patterns import Patterns, Search
from mmbm_onnx.scanning.settings import ScanSettings
from mmbm_onnx.types import FloatArray, IntArray

_LEAST_FLIPPED = 0.1  # of samples of other classes
_SHORT = 5  # a short look takes this part of the steps, and of the samples a third


@dataclass(frozen=True, slots=True)
class Recovered:
    """The smallest pattern found for a class by a norm.

    Attributes:
        norm: By which it is small.
        target: Its class.
        size: In the unit of the norm.
        pattern: float32, the shape of a point; to be added.
        flipped: Samples that it was not made from and that it drives from another class to its
            own, by index, int64 ``(m,)``.
        others: How many of these samples are of other classes.
    """

    norm: Norm
    target: int
    size: float
    pattern: npt.NDArray[np.float32]
    flipped: IntArray
    others: int

    @property
    def flipped_share(self) -> float:
        """Share of the samples of other classes that it drives."""
        return len(self.flipped) / max(1, self.others)


def sizes_by_class(found: Sequence[Recovered], norm: Norm, classes: int) -> FloatArray:
    """Sizes ``(classes,)`` by one norm; NaN for classes without a pattern, or with one that does
    next to nothing to other samples: its size means nothing."""
    sizes = np.full(classes, np.nan)
    for one in found:
        if one.norm == norm and one.flipped_share >= _LEAST_FLIPPED:
            sizes[one.target] = one.size
    return sizes


def geometries(
    shape: tuple[int, ...], reach: float, *, channels: int | None, along: tuple[int, ...]
) -> tuple[Geometry, ...]:
    """The norms that patterns of a shape are measured by.

    Args:
        shape: Of a pattern.
        reach: Width of the range of valid inputs.
        channels: Axis of channels.
        along: Axes that waves can run along; none for inputs without an order.
    """
    found: list[Geometry] = [Spread(shape, reach), Gathered(shape, reach, channels)]
    if along:
        found.append(Waves(shape, reach, channels, along))
    return tuple(found)


def look(
    classifier: Classifier,
    clean: Points,
    decisions: Tensor,
    held: tuple[Points, Tensor],
    classes: int,
    norms: Sequence[Geometry],
    settings: ScanSettings,
    generator: torch.Generator,
    *,
    low: float,
    high: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[Recovered]:
    """The smallest patterns of all classes, or of the most exposed where there are very many. A
    class that all samples are decided as gets none: there is nothing to drive to it.

    Args:
        classifier: The network.
        clean: Samples to make patterns from.
        decisions: The network's of them, int64 ``(n,)``.
        held: Other samples, to see what patterns do, and the network's decisions.
        classes: Number of classes.
        norms: What to measure patterns by.
        settings: How to look.
        generator: Source of randomness, on the CPU.
        low, high: Range of valid inputs.
        progress: Called with (steps done, steps in all).

    Raises:
        ModelError: No gradient reaches the input.
    """
    many = classes > settings.most_classes
    short = replace(
        settings,
        steps=max(1, settings.steps // _SHORT),
        samples_per_pattern=max(1, settings.samples_per_pattern // 3),
    )
    total = len(norms) * (settings.steps + (short.steps if many else 0))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def search(how: ScanSettings) -> Search:
        return Search(
            classifier, clean, decisions, how, generator, low=low, high=high, progress=step
        )

    full, brief = search(settings), search(short) if many else None
    reachable = [target for target in range(classes) if bool((decisions != target).any())]
    results = []
    for geometry in norms:
        chosen = torch.tensor(reachable)
        if brief is not None:
            sizes = brief.run(chosen, geometry).sizes
            chosen = chosen[sizes.argsort()[: settings.most_classes].sort().values]
        found = full.run(chosen, geometry)
        results += _results(geometry.norm, found, full, held)
    return results


def _results(
    norm: Norm, found: Patterns, search: Search, held: tuple[Points, Tensor]
) -> list[Recovered]:
    return [
        Recovered(
            norm,
            int(target),
            float(size),
            pattern.cpu().float().numpy(),
            flips.samples.numpy(),
            flips.others,
        )
        for target, size, pattern, flips in zip(
            found.classes, found.sizes, found.patterns, search.flips(found, *held), strict=True
        )
    ]
