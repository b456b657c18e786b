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
# Of the scores, from the largest: those that an exponential tail is fitted to.
_TAIL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Tail:
    """An exponential tail: the chance to score above ``s`` is
    ``share * exp(-max(s - start, 0) / excess)``.

    Attributes:
        start: Score where it begins.
        excess: Mean excess over it, above 0.
        share: Of clean scores above it.
    """

    start: float
    excess: float
    share: float

    def threshold(self, false_positive_rate: float) -> float:
        """Score that so large a share lies above, for a rate below ``share``."""
        return self.start + self.excess * math.log(self.share / false_positive_rate)


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
        tail: What a conformal threshold and its p-values are at least those of, or None.
    """

    kind: Literal["conformal", "gaussian"]
    scores: npt.NDArray[np.float32]
    mean: float
    std: float
    threshold: float
    false_positive_rate: float
    tail: Tail | None = None


def fit_null(scores: npt.NDArray[Any], false_positive_rate: float, *, steady: bool = False) -> Null:
    """Fit the null to the scores of clean samples that nothing was fitted to.

    With ``n + 1 >= 1 / false_positive_rate`` the threshold is conformal: a fresh clean sample is
    flagged with at most that probability whatever the distribution (split conformal p-value).
    With fewer scores no rank is that rare, and the threshold is that of a normal distribution
    with their mean and standard deviation, as MMDF has it (arXiv 2308.04617, detection and
    inference section), one-sided.

    That share holds on average over clean sets; with one of them, the share above the fifth of
    500 scores varies by half of itself (a Beta distribution, Vovk 2012). A *steady* threshold
    is not below that of an exponential tail through the largest quarter of the scores (excesses
    over a high threshold: Pickands 1975; exponential where tails are light), which varies less.
    A score far beyond all others lifts it: towards missing, not towards flagging.

    Args:
        scores: Clean scores ``(n,)``.
        false_positive_rate: In (0, 1).
        steady: Whether a conformal threshold is to be so.

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
        tail = _tail(ordered) if steady else None
        if tail is not None and false_positive_rate < tail.share:
            threshold = max(threshold, float(np.float32(tail.threshold(false_positive_rate))))
        return Null("conformal", ordered, mean, std, threshold, false_positive_rate, tail)
    quantile = NormalDist().inv_cdf(1 - false_positive_rate)
    threshold = float(np.float32(mean + quantile * std))
    return Null("gaussian", ordered, mean, std, threshold, false_positive_rate)


def _in_tail(count: int) -> int:
    """How many of so many scores, at least two, a tail is fitted to."""
    return max(1, math.floor(_TAIL_SHARE * count))


def _tail(ordered: npt.NDArray[np.float32]) -> Tail:
    count = len(ordered)
    most = _in_tail(count)
    wide = ordered[count - most - 1 :].astype(np.float64)
    start = float(wide[0])
    excess = max(float(wide[1:].mean()) - start, float(np.finfo(np.float32).tiny))
    return Tail(start, excess, most / count)


def leave_one_out_rate(
    scores: npt.NDArray[Any],
    false_positive_rate: float,
    *,
    steady: bool = False,
    counted: BoolArray | None = None,
) -> float:
    """Share of clean samples that a null of all the others flags, a fraction.

    Args:
        scores: Clean scores ``(n,)``.
        false_positive_rate: In (0, 1).
        steady: As ``fit_null`` has it.
        counted: Samples that can be flagged at all, bool ``(n,)``; None for all.

    Raises:
        RewriteError, ValueError: As ``fit_null``; n must be at least 3.
    """
    fit_null(scores[1:], false_positive_rate)  # refuses too few
    ordered = fit_null(scores, false_positive_rate).scores
    count = len(ordered)
    can = (
        np.ones(count, np.bool_) if counted is None else counted[np.argsort(scores, kind="stable")]
    )
    rank = _rank(count - 1, false_positive_rate)
    if rank >= 1:
        # Above the rank-th of the others: fewer than `rank` of them are as large.
        others = count - np.searchsorted(ordered, ordered, side="left") - 1
        rare = others < rank
        if steady:
            rare &= _above_tails_of_others(ordered, false_positive_rate)
        return float(np.mean(rare & can))
    flagged = [
        flags(fit_null(np.delete(ordered, index), false_positive_rate), ordered[index])
        for index in range(count)
    ]
    return float(np.mean(np.reshape(flagged, -1) & can))


def _above_tails_of_others(
    ordered: npt.NDArray[np.float32], false_positive_rate: float
) -> BoolArray:
    """Which scores, ascending, lie above the threshold of a tail fitted to all the others."""
    count = len(ordered)
    most = _in_tail(count - 1)
    share = most / (count - 1)
    if false_positive_rate >= share:
        return np.ones(count, np.bool_)
    # The tail of the others begins at the same score for all that can be in it; lower ones are
    # below where it begins.
    wide = ordered[count - most - 2 :].astype(np.float64)
    start, top = wide[0], wide[1:]
    excess = np.maximum((top.sum() - top) / most - start, np.finfo(np.float32).tiny)
    thresholds = start + excess * math.log(share / false_positive_rate)
    above = np.zeros(count, np.bool_)
    above[count - most - 1 :] = top.astype(np.float32) > thresholds.astype(np.float32)
    return above


def _rank(count: int, false_positive_rate: float) -> int:
    """Which of ``count`` clean scores, from the largest, is the threshold; 0 for none so rare."""
    return min(math.floor(false_positive_rate * (count + 1) + _RANK_SLACK), count)


def flags(null: Null, scores: npt.NDArray[np.float32]) -> BoolArray:
    """Which scores are flagged: above the threshold, or not a number. Any shape."""
    return np.asarray((scores > np.float32(null.threshold)) | np.isnan(scores))


def p_values(null: Null, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probability that a clean sample scores at least as high, float32, same shape.

    Conformal: (1 + number of clean scores at least as large) / (n + 1), and where the null has a
    tail, at least what that gives. Gaussian: the normal tail above the score. A score that is not
    a number has the smallest value there is.
    """
    scores = np.asarray(scores, dtype=np.float32)
    if null.kind == "conformal":
        total = np.float32(len(null.scores) + 1)
        below = np.searchsorted(null.scores, scores, side="left").astype(np.float32)
        found = (total - below) / total
        if null.tail is not None:
            found = np.maximum(found, _in_float32(null.tail, scores))
        return np.where(np.isnan(scores), np.float32(1) / total, found)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = (scores - np.float32(null.mean)) / gaussian_scale(null)
    erf = np.vectorize(math.erf, otypes=[np.float32])(distance)
    tail = np.float32(0.5) * (np.float32(1) - erf)
    return np.where(np.isnan(scores), np.float32(0), tail).astype(np.float32)


def _in_float32(tail: Tail, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    over = np.maximum(scores - np.float32(tail.start), np.float32(0))
    with np.errstate(over="ignore"):
        fall = np.exp(over / np.float32(-tail.excess))
    return np.asarray(np.float32(tail.share) * fall)


def gaussian_scale(null: Null) -> np.float32:
    """sqrt(2) standard deviations as float32, kept above zero where all scores are equal."""
    tiny = np.finfo(np.float32).tiny
    return np.float32(max(np.float32(null.std * math.sqrt(2)), tiny))
