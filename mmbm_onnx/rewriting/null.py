"""The null: what the detector's score looks like on clean samples.

The numpy functions here are the reference for the decision inside the detector graph: flags are
made by one float32 comparison in both, so they agree exactly, ties included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.types import BoolArray

# Counts up to here are exact in float32.
_MOST_SCORES = 2**24 - 2
# Keeps a rate of, say, 0.07 from losing a rank because 0.07 * 100 is not 7 in binary.
_RANK_SLACK = 1e-9
# How far above the rate asked for a null may be, and how often further.
_EXCESS = 1.5
_RISK = 0.05


@dataclass(frozen=True, eq=False)
class Null:
    """Distribution of the score on clean calibration samples.

    Attributes:
        kind: ``"conformal"``: ranks among the scores, the false-positive rate holds for any
            distribution; ``"gaussian"``: a normal tail, for too few scores.
        scores: The clean scores, float32 ``(n,)``, ascending.
        mean: Their mean.
        std: Their standard deviation (n - 1 in the denominator).
        threshold: A score above it is flagged; a float32 number.
        false_positive_rate: The rate it was fitted for.
    """

    kind: Literal["conformal", "gaussian"]
    scores: npt.NDArray[np.float32]
    mean: float
    std: float
    threshold: float
    false_positive_rate: float


def fit_null(scores: npt.NDArray[Any], false_positive_rate: float) -> Null:
    """Fit the null to the scores of clean samples that nothing was learned on.

    With ``n + 1 >= 1 / false_positive_rate`` the threshold is conformal: a fresh clean sample is
    flagged with at most that probability whatever the distribution (split conformal p-value).
    With fewer scores no rank is that rare, and the threshold is that of a normal distribution
    with their mean and standard deviation, as MMDF has it (arXiv 2308.04617, detection and
    inference section), one-sided.

    Args:
        scores: Clean scores ``(n,)``.
        false_positive_rate: In (0, 1).

    Raises:
        RewriteError: A score is not finite, or there are fewer than two, or too many to count.
        ValueError: The rate is not in (0, 1), or the scores have another shape.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(f"false_positive_rate is {false_positive_rate}, expected in (0, 1)")
    if scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape}, expected (n,)")
    ordered = np.sort(scores.astype(np.float32))
    count = len(ordered)
    if not 2 <= count <= _MOST_SCORES:
        raise RewriteError(f"a detector needs 2 to {_MOST_SCORES} clean scores, got {count}")
    bad = count - int(np.isfinite(ordered).sum())
    if bad:
        raise RewriteError(f"{bad} of {count} clean scores are not finite; check the clean set")
    wide = ordered.astype(np.float64)
    mean, std = float(wide.mean()), float(wide.std(ddof=1))
    rank = _rank(count, false_positive_rate)
    if rank >= 1:
        # p <= rate means that fewer than `rank` clean scores are as large: above the rank-th.
        threshold = float(ordered[count - rank])
        return Null("conformal", ordered, mean, std, threshold, false_positive_rate)
    quantile = NormalDist().inv_cdf(1 - false_positive_rate)
    threshold = float(np.float32(mean + quantile * std))
    return Null("gaussian", ordered, mean, std, threshold, false_positive_rate)


def cautious_rate(count: int, false_positive_rate: float) -> float:
    """The rate to fit a null for so that the one asked for is hardly ever missed by much.

    The share of clean data above the r-th largest of ``count`` clean scores follows a Beta
    distribution with mean r / (count + 1) (Vovk 2012, conditional validity): of one null in
    seven, fitted to 500 scores for 1 %, it is above 1.5 %. This is the largest r / (count + 1) up
    to the rate asked for with which that share exceeds one and a half times the rate with a
    probability of at most 5 %.

    Args:
        count: Number of clean scores.
        false_positive_rate: What is asked for, in (0, 1).

    Returns:
        That rate, or the one asked for where there are too few scores for any.
    """
    excess = min(_EXCESS * false_positive_rate, 1.0)
    chosen, below = 0, 0.0
    for rank in range(1, _rank(count, false_positive_rate) + 1):
        # The share is above `excess` if fewer than `rank` of the scores lie in that tail.
        below += _binomial(rank - 1, count, excess)
        if below > _RISK:
            break
        chosen = rank
    return chosen / (count + 1) if chosen else false_positive_rate


def _binomial(successes: int, trials: int, chance: float) -> float:
    if chance >= 1:
        return float(successes == trials)
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1)
    ways -= math.lgamma(trials - successes + 1)
    return math.exp(
        ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance)
    )


def leave_one_out_rate(scores: npt.NDArray[Any], false_positive_rate: float) -> float:
    """Share of clean samples that a null of all the others flags, a fraction.

    Args:
        scores: Clean scores ``(n,)``.
        false_positive_rate: In (0, 1).

    Raises:
        RewriteError, ValueError: As ``fit_null``; n must be at least 3.
    """
    fit_null(scores[1:], false_positive_rate)  # refuses too few
    ordered = fit_null(scores, false_positive_rate).scores
    count = len(ordered)
    rank = _rank(count - 1, false_positive_rate)
    if rank >= 1:
        # Above the rank-th of the others: fewer than `rank` of them are as large.
        others = count - np.searchsorted(ordered, ordered, side="left") - 1
        return float(np.mean(others < rank))
    flagged = [
        flags(fit_null(np.delete(ordered, index), false_positive_rate), ordered[index])
        for index in range(count)
    ]
    return float(np.mean(flagged))


def _rank(count: int, false_positive_rate: float) -> int:
    """Which of ``count`` clean scores, from the largest, is the threshold; 0 for none so rare."""
    return min(math.floor(false_positive_rate * (count + 1) + _RANK_SLACK), count)


def flags(null: Null, scores: npt.NDArray[np.float32]) -> BoolArray:
    """Which scores are flagged: above the threshold, or not a number. Any shape."""
    return np.asarray((scores > np.float32(null.threshold)) | np.isnan(scores))


def p_values(null: Null, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probability that a clean sample scores at least as high, float32, same shape.

    Conformal: (1 + number of clean scores at least as large) / (n + 1). Gaussian: the normal
    tail above the score. A score that is not a number has the smallest value there is.
    """
    scores = np.asarray(scores, dtype=np.float32)
    if null.kind == "conformal":
        total = np.float32(len(null.scores) + 1)
        below = np.searchsorted(null.scores, scores, side="left").astype(np.float32)
        return np.where(np.isnan(scores), np.float32(1) / total, (total - below) / total)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = (scores - np.float32(null.mean)) / gaussian_scale(null)
    erf = np.vectorize(math.erf, otypes=[np.float32])(distance)
    tail = np.float32(0.5) * (np.float32(1) - erf)
    return np.where(np.isnan(scores), np.float32(0), tail).astype(np.float32)


def gaussian_scale(null: Null) -> np.float32:
    """sqrt(2) standard deviations as float32, kept above zero where all scores are equal."""
    tiny = np.finfo(np.float32).tiny
    return np.float32(max(np.float32(null.std * math.sqrt(2)), tiny))
