"""From sizes of patterns and margins to a verdict: does a class stand apart from the others?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mmbm_onnx.scanning.geometry import Norm
from mmbm_onnx.scanning.look import Recovered
from mmbm_onnx.types import FloatArray

TestName = Literal["patterns", "margin"]

THRESHOLD = 5.0
"""From which a score of patterns is suspicious; chosen by networks known to be clean."""
MARGIN_THRESHOLD = -math.log10(0.05)  # as in arXiv 2205.06900

_FEWEST = 5  # classes that can be held against each other
_NORMAL = 1.4826  # standard deviations in a median absolute deviation, of a normal distribution
_LEAST_SPREAD = 0.1  # of logarithms; less is chance
_SMALLEST_P = 1e-12


@dataclass(frozen=True, slots=True)
class Test:
    """One measure of how far classes stand apart.

    Attributes:
        name: ``"patterns"``, or ``"margin"`` for MM-BD.
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
    """A class that looks like the target of a backdoor, and the test that says so.

    Attributes:
        norm: Of patterns, the norm by which the class stands out most; None for margins.
    """

    target: int
    test: TestName
    score: float
    threshold: float
    norm: Norm | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict.

    Attributes:
        leads: Norm to how far each class's pattern leads those of the others, ``(classes,)``, in
            standard deviations; NaN where it cannot be told.
        tests: All that were made.
        findings: One per suspected class, the most suspicious first.
        margin_p_value: MM-BD's; None where it cannot be told.
    """

    leads: Mapping[Norm, FloatArray]
    tests: tuple[Test, ...]
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
    leads = {
        norm: leads_of(general_costs(recovered, norm, classes))
        for norm in dict.fromkeys(one.norm for one in recovered)
    }
    tests = []
    if leads:
        tests.append(Test("patterns", np.sum(list(leads.values()), axis=0), THRESHOLD, True))
    p_value = gamma_p_value(margins)
    scores = np.full(classes, np.nan if p_value is None else 0.0)
    if p_value is not None:
        scores[int(np.argmax(margins))] = -math.log10(max(p_value, _SMALLEST_P))
    tests.append(Test("margin", scores, MARGIN_THRESHOLD, not leads))
    return Judgement(leads, tuple(tests), _findings(tests, leads), p_value)


def general_costs(recovered: Sequence[Recovered], norm: Norm, classes: int) -> FloatArray:
    """What it costs a pattern of each class to work on many samples: its size over that of patterns
    for single samples, ``(classes,)``; NaN for classes without one.

    Features of a class are not the same in every sample, so that a pattern that gives them to all
    is larger than one that gives them to one. A trigger is the same for all.
    """
    costs = np.full(classes, np.nan)
    for one in recovered:
        if one.norm == norm:
            costs[one.target] = one.size / one.single_size
    return costs


def leads_of(costs: FloatArray) -> FloatArray:
    """How far each class lies below the median of all, by the logarithm of its cost, in standard
    deviations as estimated by the median absolute deviation, which several targets of a backdoor
    do not inflate (the anomaly index of Neural Cleanse, of logarithms).

    Args:
        costs: ``(classes,)``; NaN where there is none.

    Returns:
        ``(classes,)``; negative for classes above the median, NaN where there is no cost, or
        fewer than five of them.
    """
    logs = np.log(costs)
    known = np.isfinite(logs)
    if known.sum() < _FEWEST:
        return np.full(len(costs), np.nan)
    middle = np.median(logs[known])
    spread = _NORMAL * np.median(np.abs(logs[known] - middle))
    return np.asarray((middle - logs) / max(float(spread), _LEAST_SPREAD))


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
    if len(values) < _FEWEST or len(positive) <= 2:
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


def _findings(tests: Sequence[Test], leads: Mapping[Norm, FloatArray]) -> tuple[Finding, ...]:
    found = []
    for test in tests:
        if not test.decides:
            continue
        for target in np.flatnonzero(test.scores >= test.threshold):
            score = float(test.scores[target])
            norm = _loudest(leads, int(target))
            found.append(Finding(int(target), test.name, score, test.threshold, norm))
    return tuple(sorted(found, key=lambda one: -one.score))


def _loudest(leads: Mapping[Norm, FloatArray], target: int) -> Norm | None:
    """The norm by which a class leads most."""
    found = [(float(values[target]), norm) for norm, values in leads.items()]
    return max(found)[1] if found else None
