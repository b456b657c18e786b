"""Evidence: how unlike clean samples of the decided class a sample's activations are.

MMDF (arXiv 2308.04617) flags a sample by its margin difference alone. A trigger also shows in the
activations that the bounds are put on: they are too high, or they are not those of the class that
the original decides for. Here some sites of the original (or, where reading there would change bits
of its answers, of the bounded branch before the bound) are looked at: the mean and the maximum of
each channel over positions, square roots taken (with their sign, where activations have one), and
their Mahalanobis distance from clean samples of each class (after arXiv 1807.03888), with a
covariance of low rank and an even rest. Of the decided class's distance, its logarithm and the
logarithm of its ratio to the nearest other class's are two features; the score is their mean over
all sites, each in standard deviations from its clean mean, plus the margin difference in the same
unit, at a fifth.

Where the null comes from: distances are fitted to all clean samples, and the clean scores are
cross-fitted (cross-conformal prediction, Vovk 2015): each sample is scored by distances that were
fitted without it.

The numpy functions here are the reference for the nodes of ``evidence_nodes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmbm_onnx.types import BoolArray, IntArray

Floats = npt.NDArray[np.float64]

FEWEST = 20
"""Samples below which there is no telling what is usual."""

_RANK = 16
_SAMPLES_PER_RANK = 10
_PRIOR = 3.0  # samples that pull a class's mean to the mean of all
_FOLDS = 10
_FLAT = 1e-2  # of the mean deviation: a channel that varies less counts as if it varied so much
_SMALLEST_SPREAD = 1e-2  # of a logarithm
_SMALLEST_MARGIN_SPREAD = 1e-4  # logits
SMALLEST_DISTANCE = 1e-2
"""Distances below are this: so usual that float32 cannot tell how usual."""

_MARGIN = 0.2  # of the margin difference, beside 1 for all features together


@dataclass(frozen=True, eq=False)
class SiteDistances:
    """Squared distances of one site's summary from clean samples of each class, per channel: that
    of a clean sample from its own class is about 1.

    With ``t = root(summary) * scale - shift`` and ``p = t @ basis`` they are
    ``(t * t).sum(2) + (p * p) @ curvature + p @ slopes + offsets``. Views are the statistics of a
    summary: mean and maximum, or the value itself.

    Attributes:
        tensor: Name of the site's tensor.
        signed: Whether the root of a negative number is minus that of its size, or else 0.
        scale, shift: float32 ``(views, 1, channels)``.
        basis: float32 ``(views, channels, rank)``, orthonormal columns.
        curvature: float32 ``(views, rank, 1)``.
        slopes: float32 ``(views, rank, classes)``.
        offsets: float32 ``(views, 1, classes)``.
    """

    tensor: str
    signed: bool
    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]
    curvature: npt.NDArray[np.float32]
    slopes: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]

    def __call__(self, summaries: npt.NDArray[np.float32]) -> Floats:
        """Squared distances ``(views, n, classes)`` of summaries ``(views, n, channels)``."""
        t = _root(summaries, signed=self.signed) * self.scale - self.shift
        p = t @ self.basis
        found = (t * t).sum(2, keepdims=True) + (p * p) @ self.curvature
        distances: Floats = np.maximum(found + p @ self.slopes + self.offsets, SMALLEST_DISTANCE)
        return distances


@dataclass(frozen=True, eq=False)
class Evidence:
    """All there is to compute the score, which is
    ``own @ log(own distance) - other @ log(nearest other distance) + margin * margin difference
    + constant``.

    Attributes:
        sites: In the order of their distances.
        own, other: float32 ``(views of all sites,)``.
        margin: Per logit.
        constant: Brings the mean clean score to 0.
        first_margin: Per logit, of the original's margin in the first score.
        first_constant: Brings the mean clean first score to 0.
        usual: Margin difference below which bounds have taken less than they take from clean
            samples, logits: a standard deviation below their mean.
    """

    sites: tuple[SiteDistances, ...]
    own: npt.NDArray[np.float32]
    other: npt.NDArray[np.float32]
    margin: float
    constant: float
    first_margin: float
    first_constant: float
    usual: float

    def scores(
        self,
        summaries: Mapping[str, npt.NDArray[np.float32]],
        decisions: IntArray,
        margins: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """The score of each sample, ``(n,)``; see ``fit_evidence`` for the arguments."""
        found = self._unusual(summaries, decisions) + self.margin * margins + self.constant
        return np.asarray(found, np.float32)

    def firsts(
        self,
        summaries: Mapping[str, npt.NDArray[np.float32]],
        decisions: IntArray,
        originals: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """The first score of each sample, ``(n,)``, which is known without the bounded branch: the
        original's margin stands for the margin difference, since only what is there can be taken.
        """
        found = self._unusual(summaries, decisions)
        found = found + self.first_margin * originals + self.first_constant
        return np.asarray(found, np.float32)

    def _unusual(
        self, summaries: Mapping[str, npt.NDArray[np.float32]], decisions: IntArray
    ) -> Floats:
        own, other = _logarithms([site(summaries[site.tensor]) for site in self.sites], decisions)
        found: Floats = own @ self.own - other @ self.other
        return found


@dataclass(frozen=True, eq=False)
class Fitted:
    """Evidence, and what clean samples score, each by distances that were fitted without it.

    Attributes:
        evidence: The evidence.
        scores: float32 ``(n,)``.
        firsts: Their first scores (see ``Evidence.firsts``), float32 ``(n,)``.
    """

    evidence: Evidence
    scores: npt.NDArray[np.float32]
    firsts: npt.NDArray[np.float32]


def fit_evidence(
    summaries: Mapping[str, npt.NDArray[np.float32]],
    decisions: IntArray,
    margins: npt.NDArray[np.float32],
    originals: npt.NDArray[np.float32] | None = None,
    *,
    right: BoolArray,
    learned_on: BoolArray,
    classes: int,
    seed: int,
) -> Fitted | None:
    """Fit the score to clean samples.

    Margin differences of samples that bounds were learned on are smaller than those of fresh
    ones; each is taken for the one that has the same rank among the others. (Where a method is
    steered by its accuracy on these, they are fresh but for that.)

    Args:
        summaries: Per site, in the bounded branch before the bound or in the original, each
            channel's mean and maximum over positions (or its value): ``(views, n, channels)``.
        decisions: The original's, ``(n,)``.
        margins: Margin differences ``(n,)``, in logits.
        originals: The original's margins ``(n,)``, in logits; None where no first score is needed.
        right: Which decisions are right; only their samples tell what a class looks like.
        learned_on: Which samples bounds were learned on.
        classes: Number of classes.
        seed: Of the folds.

    Returns:
        None where there are fewer than 20 samples or no site varies.
    """
    varying = {name: found for name, found in summaries.items() if _varies(found)}
    if len(decisions) < FEWEST or not varying:
        return None
    rank = min(_RANK, len(decisions) // _SAMPLES_PER_RANK)

    def fit(chosen: BoolArray) -> tuple[SiteDistances, ...]:
        used = chosen & right if (chosen & right).sum() > 1 else chosen
        return tuple(
            _fit_site(name, found[:, used], decisions[used], classes, rank)
            for name, found in varying.items()
        )

    folds = np.random.default_rng(seed).permutation(len(decisions)) % _FOLDS
    views = sum(len(found) for found in varying.values())
    own, other = np.empty((2, len(decisions), views))
    for fold in range(_FOLDS):
        left_out = folds == fold
        distances = [site(varying[site.tensor][:, left_out]) for site in fit(~left_out)]
        own[left_out], other[left_out] = _logarithms(distances, decisions[left_out])
    margins = _as_if_fresh(margins, learned_on)
    middle, spread = _standard(np.concatenate([own, own - other], 1), _SMALLEST_SPREAD)
    margin_middle, margin_spread = _standard(margins[:, None], _SMALLEST_MARGIN_SPREAD)
    share = 1 / (2 * views)
    margin = _MARGIN / float(margin_spread[0])
    first_middle, first_margin = _first(originals)
    evidence = Evidence(
        sites=fit(np.ones(len(decisions), np.bool_)),
        own=(share * (1 / spread[:views] + 1 / spread[views:])).astype(np.float32),
        other=(share / spread[views:]).astype(np.float32),
        margin=float(np.float32(margin)),
        constant=float(
            np.float32(-share * (middle / spread).sum() - margin * float(margin_middle[0]))
        ),
        first_margin=float(np.float32(first_margin)),
        first_constant=float(
            np.float32(-share * (middle / spread).sum() - first_margin * first_middle)
        ),
        usual=float(np.float32(margin_middle[0] - margin_spread[0])),
    )
    unusual = own @ evidence.own - other @ evidence.other
    firsts = unusual + evidence.first_constant
    if originals is not None:
        firsts = firsts + evidence.first_margin * originals
    return Fitted(
        evidence,
        np.asarray(unusual + evidence.margin * margins + evidence.constant, np.float32),
        np.asarray(firsts, np.float32),
    )


def _first(originals: npt.NDArray[np.float32] | None) -> tuple[float, float]:
    """Mean of the original's margins, and their weight: that of margin differences."""
    if originals is None or not np.isfinite(originals).all():
        return 0.0, 0.0
    middle, spread = _standard(originals[:, None], _SMALLEST_MARGIN_SPREAD)
    return float(middle[0]), _MARGIN / float(spread[0])


def _varies(summaries: npt.NDArray[np.float32]) -> bool:
    return bool(np.isfinite(summaries).all() and (np.ptp(summaries, axis=1) > 0).any(1).all())


def _fit_site(
    tensor: str, summaries: npt.NDArray[np.float32], decisions: IntArray, classes: int, rank: int
) -> SiteDistances:
    signed = bool((summaries < 0).any())
    roots = _root(summaries, signed=signed)
    parts = [_fit_view(view, decisions, classes, rank) for view in roots]
    return SiteDistances(
        tensor, signed, *(np.stack(part).astype(np.float32) for part in zip(*parts, strict=True))
    )


def _root(summaries: npt.NDArray[np.float32], *, signed: bool) -> Floats:
    roots = np.sqrt(np.abs(summaries) if signed else np.maximum(summaries, 0))
    return (np.sign(summaries) * roots if signed else roots).astype(np.float64)


def _fit_view(values: Floats, decisions: IntArray, classes: int, rank: int) -> tuple[Floats, ...]:
    """Arrays of ``SiteDistances`` for one view ``(n, channels)``, roots taken."""
    n, channels = values.shape
    rank = min(rank, channels, n)
    centre = values.mean(0)
    means = np.tile(_PRIOR * centre, (classes, 1))
    np.add.at(means, decisions, values)
    means /= (np.bincount(decisions, minlength=classes) + _PRIOR)[:, None]
    deviation = np.sqrt(np.square(values - means[decisions]).mean(0))
    least = _FLAT * deviation.mean() + np.finfo(np.float32).tiny
    deviation = np.maximum(deviation, least)

    around = (values - centre) / deviation
    basis = _leading(around, rank)
    within = ((values - means[decisions]) / deviation) @ basis
    covariance = within.T @ within / n
    shrink = rank / (n + rank)
    even = np.trace(covariance) / rank * np.eye(rank)
    variances, turn = np.linalg.eigh((1 - shrink) * covariance + shrink * even)
    variances = np.maximum(variances, 1e-9)
    basis = basis @ turn
    # What the basis leaves is taken for even, and shrunk towards 1, a channel's own variance:
    # with much less, float32 could not tell the sum of squares from its part in the basis.
    left = np.square(around).sum() - np.square(around @ basis).sum()
    rest = (1 - shrink) * left / n / max(channels - rank, 1) + shrink if channels > rank else 1.0
    root = np.sqrt(rest * channels)
    centres = ((means - centre) / deviation) @ basis
    return (
        (1 / deviation / root)[None],
        (centre / deviation / root)[None],
        basis,
        (rest / variances - 1)[:, None],
        -2 * root / channels * (centres / variances).T,
        np.square(centres / np.sqrt(variances)).sum(1)[None] / channels,
    )


def _leading(rows: Floats, rank: int) -> Floats:
    """Orthonormal directions of the largest variance, ``(channels, rank)``."""
    if rows.shape[1] <= rows.shape[0]:
        vectors: Floats = np.linalg.eigh(rows.T @ rows)[1]
        return vectors[:, ::-1][:, :rank]
    # Of more channels than samples, through the samples; QR mends what rounding bends.
    vectors = rows.T @ np.linalg.eigh(rows @ rows.T)[1]
    return np.linalg.qr(vectors[:, ::-1][:, :rank])[0]


def _logarithms(distances: list[Floats], decisions: IntArray) -> tuple[Floats, Floats]:
    """Logarithms of the own and of the nearest other distance, ``(n, views of all sites)``."""
    every = np.concatenate(distances)
    is_own = decisions[:, None] == np.arange(every.shape[2])
    own = np.where(is_own, every, 0).sum(2)
    other = np.where(is_own, np.inf, every).min(2)
    return np.log(own).T, np.log(other).T


def _as_if_fresh(
    margins: npt.NDArray[np.float32], learned_on: BoolArray
) -> npt.NDArray[np.float32]:
    count = int(learned_on.sum())
    if count in (0, len(margins)):
        return margins
    ranks = np.argsort(np.argsort(margins[learned_on], kind="stable"), kind="stable")
    fresh = margins.copy()
    fresh[learned_on] = np.quantile(margins[~learned_on], (ranks + 0.5) / count)
    return fresh


def _standard(features: npt.NDArray[np.floating], smallest: float) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column, the latter not below ``smallest``."""
    wide = features.astype(np.float64)
    return wide.mean(0), np.maximum(wide.std(0), smallest)
