"""One seeded, stratified split of the clean set: to fit bounds, and to calibrate."""

from __future__ import annotations

import numpy as np

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.types import IntArray, Samples

FIT_FRACTION = 0.6
"""Default share of the samples that bounds are fitted on."""


def split(
    samples: Samples,
    fraction: float = FIT_FRACTION,
    seed: int = 0,
    *,
    labels: IntArray | None = None,
) -> tuple[Samples, Samples]:
    """Divide samples into a fit part and a calibration part, without overlap.

    Every class keeps its share in both parts as nearly as whole samples allow, and a class of two
    or more samples is in both. A class of one goes to the fit part. Within a part, samples keep
    their order. The same samples, fraction and seed give the same parts.

    Args:
        samples: At least 2.
        fraction: Share of the fit part, strictly between 0 and 1.
        seed: At least 0.
        labels: Classes ``(n,)`` to stratify by where ``samples.y`` is None, such as the model's
            own decisions; without either, all samples are one class.

    Returns:
        Fit part and calibration part, neither empty.

    Raises:
        OptionError: ``fraction`` or ``seed`` out of range.
        DataError: Too few samples for two parts, or ``labels`` of another length.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"fraction is {fraction}, expected a number between 0 and 1")
    if seed < 0:
        raise OptionError(f"seed is {seed}, expected 0 or more")
    n = len(samples)
    strata = samples.y if samples.y is not None else labels
    if strata is None:
        strata = np.zeros(n, np.int64)
    if strata.shape != (n,):
        raise DataError(f"{samples.source}: {strata.shape} labels to split {n} samples by")
    values, counts = np.unique(strata, return_counts=True)
    if counts.size == 0 or counts.max() < 2:
        raise DataError(
            f"{samples.source}: {n} samples with no class twice cannot be split in two; add samples"
        )
    generator = np.random.default_rng(seed)
    quota = _quota(counts, fraction, generator)
    in_fit = np.zeros(n, np.bool_)
    for value, wanted in zip(values, quota, strict=True):
        members = np.flatnonzero(strata == value)
        in_fit[generator.permutation(members)[:wanted]] = True
    return samples.take(np.flatnonzero(in_fit)), samples.take(np.flatnonzero(~in_fit))


def _quota(counts: IntArray, fraction: float, generator: np.random.Generator) -> IntArray:
    """Samples of each class for the fit part: largest remainders, drawn lots where they tie."""
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(quota.sum())
    lots = generator.permutation(len(counts))
    order = np.lexsort((lots, -np.round(exact - quota, 9)))
    quota[order[: max(missing, 0)]] += 1
    return np.where(counts == 1, 1, np.clip(quota, 1, np.maximum(counts - 1, 1)))
