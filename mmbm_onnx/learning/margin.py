"""Margins, and the inputs that reach the largest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points, joined
from mmbm_onnx.learning.adam import Adam
from mmbm_onnx.learning.settings import Settings


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """Logit of a class minus the largest other logit (arXiv 2308.04617, equation 1).

    Args:
        logits: ``(n, classes)``.
        classes: Class of each row, int64 ``(n,)``.

    Returns:
        ``(n,)``, in logits.
    """
    own = torch.nn.functional.one_hot(classes, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf)
    return logits.gather(1, classes[:, None]).squeeze(1) - others.amax(1)


def pattern_gradient(
    classifier: Classifier,
    attacks: Points,
    patterns: Tensor,
    targets: Tensor,
    enough: float,
    bounds: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Which way patterns on samples raise the margins of their classes.

    Args:
        classifier: The network.
        attacks: Samples with the patterns on them, computed from ``patterns``.
        patterns: Leaves that gradients flow to.
        targets: Class of each attack, int64 ``(n,)``.
        enough: A margin, in logits, that pulls no further.
        bounds: Bounds of the network; None for the original.

    Returns:
        The gradient, shaped as ``patterns``, and the margins reached, ``(n,)``, detached.

    Raises:
        ModelError: No gradient reaches the patterns.
    """
    logits = classifier.logits(attacks, bounds)
    reached = margins(logits, targets.to(logits.device))
    pull = reached.clamp_max(enough).sum()
    if not pull.requires_grad:
        raise ModelError(
            "no gradient of the logits reaches the input: something between them has none, "
            "such as a Cast to integers; take it out of the model"
        )
    (gradient,) = torch.autograd.grad(pull, patterns)
    return gradient, reached.detach()


def max_margin_inputs(
    classifier: Classifier,
    clean: Points,
    classes: int,
    settings: Settings,
    *,
    per_class: int,
    low: float,
    high: float,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Points, Tensor]:
    """Inputs from uniform noise that climb the margin of each class in the original network.

    Args:
        classifier: The network; its bounds are not applied.
        clean: Clean samples: inputs have their shape, and the integers of random ones.
        classes: Number of classes.
        settings: ``input_steps``, ``input_rate``, ``relative`` and ``batch_size``.
        per_class: Inputs per class.
        low, high: Range of valid inputs, in the unit of the points.
        generator: Source of the noise, on the CPU.
        progress: Called with (steps done, steps in all).

    Returns:
        ``classes * per_class`` inputs and their classes, int64.
    """
    labels = torch.arange(classes).repeat_interleave(per_class).to(classifier.device)
    noise = torch.rand((len(labels), *clean.values.shape[1:]), generator=generator)
    start = Points((low + (high - low) * noise).to(clean.values))
    if clean.samples is not None:
        picks = torch.randint(len(clean), (len(labels),), generator=generator)
        start = clean[picks.to(classifier.device)].at(start.values)
    climbed = climb(
        classifier,
        start,
        labels,
        steps=settings.input_steps,
        settings=settings,
        low=low,
        high=high,
        progress=progress,
    )
    return climbed, labels


def climb(
    classifier: Classifier,
    start: Points,
    labels: Tensor,
    *,
    steps: int,
    settings: Settings,
    low: float,
    high: float,
    bounds: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Points:
    """Inputs moved up the gradient of their class's margin, within the range of valid inputs.

    Args:
        classifier: The network.
        start: Where they stand; not changed.
        labels: Their classes, int64 ``(n,)``.
        steps: Gradient steps.
        settings: ``input_rate``, ``relative`` and ``batch_size``.
        low, high: Range of valid inputs.
        bounds: Bounds of the network that is climbed; None for the original.
        progress: Called with (steps done, steps in all).
    """
    parts = []
    size = 2 * settings.batch_size
    chunks = list(zip(start.split(size), torch.split(labels, size), strict=True))
    for done, (part, own) in enumerate(chunks):
        x = part.values.clone().requires_grad_(True)
        adam = Adam([x], settings.input_rate * (high - low)) if settings.relative else None
        for step in range(steps):
            logits = classifier.logits(part.at(x.clamp(low, high)), bounds)
            (gradient,) = torch.autograd.grad(margins(logits, own).sum(), [x])
            with torch.no_grad():
                if adam is None:
                    x.add_(gradient, alpha=settings.input_rate)
                else:
                    adam.step([-gradient])
                    x.clamp_(low, high)  # keeps Adam from piling up steps beyond the range
            if progress is not None:
                progress(done * steps + step + 1, len(chunks) * steps)
        parts.append(part.at(x.detach().clamp(low, high)))
    return joined(parts)
