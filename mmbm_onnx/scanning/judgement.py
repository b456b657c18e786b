"""From sizes of patterns and margins to a verdict: does a class stand apart from the others?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mmbm_onnx.scanning.geometry import Norm
from mmbm_onnx.scanning.look import Recovered, sizes_by_class
from mmbm_onnx.types import FloatArray

TestName = Literal["l2", "l1", "waves", "margin"]

THRESHOLD = 0.9
"""From which a score of patterns is suspicious; chosen by networks known to be clean."""
DECIDING: tuple[Norm, ...] = ("l2", "l1")
"""Norms that count for the verdict. Few waves suffice for some classes of clean networks, too."""
MARGIN_THRESHOLD = -math.log10(0.05)  # as in arXiv 2205.06900

FEWEST_CLASSES = 5
"""Fewer cannot be held against each other."""
_FEWEST = FEWEST_CLASSES - 1  # classes that a class can be held against
_MOST_TARGETS = 3  # at most one class in so many is suspected
_SMALLEST_P = 1e-12


@dataclass(frozen=True, slots=True)
class Test:
    """One measure of how far classes stand apart.

    Attributes:
        name: A norm, or ``"margin"`` for MM-BD.
        scores: Per class, ``(classes,)``, the larger the more suspicious; NaN where not measured.
        threshold: From which a score is suspicious.
        decides: Whether it counts for the verdict.
    """

    name: TestName
    scores: FloatArray
    threshold: float
    decides: bool

    @property
    def highest(self) -> float | None:
        """The largest score, or None where there is none."""
        known = self.scores[np.isfinite(self.scores)]
        return float(known.max()) if known.size else None


@dataclass(frozen=True, slots=True)
class Finding:
    """A class that looks like the target of a backdoor, and the test that says so loudest."""

    target: int
    test: TestName
    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict.

    Attributes:
        tests: All that were made.
        scores: Of each class, its largest by a norm that decides, ``(classes,)``; NaN without.
        findings: One per suspected class, the most suspicious first.
        margin_p_value: MM-BD's; None where it cannot be told.
    """

    tests: tuple[Test, ...]
    scores: FloatArray
    findings: tuple[Finding, ...]
    margin_p_value: float | None


def judge(recovered: Sequence[Recovered], margins: FloatArray) -> Judgement:
    """Hold every class against the others.

    Margins from noise decide only where there are no patterns: beside them they tell little and
    raise false alarms (docs/scanning.md has figures).

    Args:
        recovered: Patterns; none where there were no clean samples.
        margins: The largest margin of each class from noise, ``(classes,)``, in logits.
    """
    classes = len(margins)
    tests = [
        Test(
            norm,
            standing_apart(sizes_by_class(recovered, norm, classes)),
            THRESHOLD,
            norm in DECIDING,
        )
        for norm in dict.fromkeys(one.norm for one in recovered)
    ]
    deciding = [test.scores for test in tests if test.decides]
    scores = np.fmax.reduce(deciding) if deciding else np.full(classes, np.nan)
    p_value = gamma_p_value(margins)
    largest = np.full(classes, np.nan if p_value is None else 0.0)
    if p_value is not None:
        largest[int(np.argmax(margins))] = -math.log10(max(p_value, _SMALLEST_P))
    tests.append(Test("margin", largest, MARGIN_THRESHOLD, not deciding))
    sizes: dict[tuple[str, int], float] = {(one.norm, one.target): one.size for one in recovered}
    # Classes that stand apart together have one score: of these, the smallest pattern first.
    found = sorted(
        _findings(tests, classes),
        key=lambda one: (-one.score, sizes.get((one.test, one.target), 0.0)),
    )
    return Judgement(tuple(tests), scores, tuple(found), p_value)


def standing_apart(sizes: FloatArray) -> FloatArray:
    """How far classes stand below the others, for one or several targets of a backdoor.

    The generalized extreme studentized deviate procedure (Rosner 1983, Technometrics 25), on one
    side: for k = 1, 2, ... the k-th smallest logarithm is held against those above it by Student's
    t, Bonferroni-corrected; where it stands apart, so do the k - 1 below it.

    Args:
        sizes: Of the smallest patterns, ``(classes,)``; NaN where there is none.

    Returns:
        ``-log10`` of the p-value, ``(classes,)``; 0 for classes that do not stand below others, NaN
        where there is no pattern, or fewer than four others.
    """
    scores = np.full(len(sizes), np.nan)
    known = np.flatnonzero(np.isfinite(sizes))
    order = known[np.argsort(sizes[known], kind="stable")]
    logs = np.log(sizes[order])
    if len(order) <= _FEWEST:
        return scores
    scores[order] = 0.0
    steps = []
    for k in range(1, max(1, len(order) // _MOST_TARGETS) + 1):
        others = logs[k:]
        if len(others) < _FEWEST:
            break
        spread = max(float(others.std(ddof=1)), 1e-6) * math.sqrt(1 + 1 / len(others))
        tail = student_tail((float(others.mean()) - logs[k - 1]) / spread, len(others) - 1)
        p_value = min(1.0, max(_SMALLEST_P, (len(order) - k + 1) * tail))
        steps.append(-math.log10(p_value))
    for k in range(len(steps)):
        scores[order[k]] = max(steps[k:])
    return scores


def student_tail(t: float, freedom: int) -> float:
    """The probability that Student's t with so many degrees of freedom is above ``t``.

    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 1.0)
    for step in range(1 if odd else 2, freedom - 1, 2):
        if odd:
            total += term
            term *= cosine**2 * (step + 1) / (step + 2)
        else:
            term *= cosine**2 * (step - 1) / step
            total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 - within) / 2


def gamma_p_value(margins: FloatArray) -> float | None:
    """MM-BD's p-value of the largest margin (arXiv 2205.06900, section III).

    A gamma distribution is fitted to the margins of all other classes, by maximum likelihood; the
    p-value is that of the largest of as many draws as there are classes.

    Args:
        margins: ``(classes,)``, in logits. Margins of 0 or less count as the smallest positive one.

    Returns:
        None where there are too few classes (fewer than 5) or positive margins to tell.
    """
    values = np.asarray(margins, np.float64)
    top = int(values.argmax())
    positive = values[values > 0]
    if len(values) <= _FEWEST or len(positive) <= 2:
        return None
    others = np.delete(np.maximum(values, positive.min()), top)
    shape, scale = _gamma(others)
    below = float(
        torch.special.gammainc(
            torch.tensor(shape, dtype=torch.float64),
            torch.tensor(values[top] / scale, dtype=torch.float64),
        )
    )
    return float(-math.expm1(len(values) * math.log(below))) if below > 0 else 1.0


def _gamma(values: FloatArray) -> tuple[float, float]:
    """Shape and scale of the likeliest gamma distribution, by Newton's method."""
    mean = float(values.mean())
    gap = max(math.log(mean) - float(np.log(values).mean()), 1e-6)
    shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(10):
        at = torch.tensor(shape, dtype=torch.float64)
        digamma = float(torch.special.digamma(at))
        trigamma = float(torch.special.polygamma(1, at))
        shape -= (math.log(shape) - digamma - gap) / (1 / shape - trigamma)
    return shape, mean / shape


def _findings(tests: Sequence[Test], classes: int) -> list[Finding]:
    found = []
    for target in range(classes):
        loud = [
            Finding(target, test.name, float(test.scores[target]), test.threshold)
            for test in tests
            if test.decides and test.scores[target] >= test.threshold
        ]
        if loud:
            found.append(max(loud, key=lambda one: one.score))
    return found
