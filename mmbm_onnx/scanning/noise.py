"""The largest margin that any input is found to reach, class by class (MM-BD)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import margins, max_margin_inputs
from mmbm_onnx.learning.settings import settings_for
from mmbm_onnx.scanning.settings import ScanSettings


def largest_margins(
    classifier: Classifier,
    like: Points,
    classes: int,
    settings: ScanSettings,
    generator: torch.Generator,
    *,
    low: float,
    high: float,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Maximum margin of each class over inputs that climbed from noise (arXiv 2205.06900,
    equation 2).

    Args:
        classifier: The network.
        like: At least one point: inputs have its shape.
        classes: Number of classes.
        settings: ``noise_inputs``, ``noise_steps``, ``noise_rate`` and ``batch_size``.
        generator: Source of the noise, on the CPU.
        low, high: Range of valid inputs.
        progress: Called with (steps done, steps in all).

    Returns:
        ``(classes,)``, in logits, on the CPU.
    """
    climbing = replace(
        settings_for("mmac", batch_size=settings.batch_size),
        input_steps=settings.noise_steps,
        input_rate=settings.noise_rate,
    )
    points, labels = max_margin_inputs(
        classifier,
        like,
        classes,
        climbing,
        per_class=settings.noise_inputs,
        low=low,
        high=high,
        generator=generator,
        progress=progress,
    )
    reached = torch.full((classes,), -torch.inf)
    with torch.no_grad():
        split = points.split(settings.batch_size), torch.split(labels, settings.batch_size)
        for part, own in zip(*split, strict=True):
            found = margins(classifier.logits(part), own)
            reached = reached.scatter_reduce(0, own.cpu(), found.cpu().float(), "amax")
    return reached
