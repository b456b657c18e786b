"""Single samples and scores behind the figures, for whoever draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.evaluation.figures import Answers
from mmbm_onnx.evaluation.metrics import victims
from mmbm_onnx.evaluation.predictions import Verdicts
from mmbm_onnx.types import BoolArray, IntArray, Interface, Samples

SHOWN = 8
"""How many samples are kept to be shown."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A few samples and what was answered.

    Attributes:
        x: ``(k, *model input shape without batch)``.
        original: Decisions of the original, int64 ``(k,)``.
        answered: Decisions of the defended graph, int64 ``(k,)``.
        truth: True classes, int64 ``(k,)``; None where not known.
        p_value: The detector's, float32 ``(k,)``; None without one.
        flagged: Whether the detector flagged them, bool ``(k,)``; None without one.
    """

    x: npt.NDArray[Any]
    original: IntArray
    answered: IntArray
    truth: IntArray | None = None
    p_value: npt.NDArray[Any] | None = None
    flagged: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Inputs:
    """How samples are to be seen.

    Attributes:
        interface: How the model is fed.
        preprocessing: How images became samples, every setting by name; None where they were
            samples already.
        low, high: Smallest and largest value of the clean samples.
        class_names: Names of the classes in index order where known, else empty.
    """

    interface: Interface
    preprocessing: Mapping[str, Any] | None
    low: float
    high: float
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Scores:
    """A detector's scores and p-values, float32 ``(n,)`` of clean and ``(m,)`` of triggered
    samples, of these only those on which the attack on the original works.

    Attributes:
        clean, clean_p: Of the clean set.
        attacked, attacked_p: Of the triggered set; empty without one.
        threshold: A score above it is flagged; None where the graph does not tell.
    """

    clean: npt.NDArray[Any]
    clean_p: npt.NDArray[Any]
    attacked: npt.NDArray[Any]
    attacked_p: npt.NDArray[Any]
    threshold: float | None


@dataclass(frozen=True, eq=False)
class Details:
    """What a verification saw.

    Attributes:
        inputs: How samples are to be seen.
        scores: Of the detector; None without one.
        odd: The clean samples that it finds the most unusual; None without one.
        triggered: Triggered samples of other classes, of as many classes as there are; None without
            a triggered set.
    """

    inputs: Inputs
    scores: Scores | None
    odd: Shown | None
    triggered: Shown | None


def inputs_of(samples: Samples, interface: Interface) -> Inputs:
    """How the samples of a clean set are to be seen."""
    low, high = float(samples.x.min()), float(samples.x.max())
    return Inputs(interface, samples.preprocessing, low, high, samples.class_names)


def most_unusual(
    samples: Samples,
    original: IntArray,
    verdicts: Verdicts,
    p_value: npt.NDArray[Any] | None = None,
) -> Shown:
    """The clean samples with the largest scores, the largest first.

    Args:
        samples: Clean samples.
        original: Decisions of the original, int64 ``(n,)``.
        verdicts: The detector's answers.
        p_value: Takes the place of those in ``verdicts``, ``(n,)``.
    """
    if p_value is not None:
        verdicts = replace(verdicts, p_value=p_value)
    scores = np.nan_to_num(verdicts.score.astype(np.float64), nan=np.inf)
    rows = np.argsort(-scores, kind="stable")[:SHOWN]
    return _shown(samples, rows, original, verdicts.classes, verdicts)


def details_of(
    samples: Samples,
    triggered: Samples | None,
    interface: Interface,
    base: Answers,
    hardened: Answers | None,
    detector: Answers | None,
    threshold: float | None,
) -> Details:
    """Pick what is worth a look.

    Args:
        samples: The clean set.
        triggered: The triggered set with ``y`` and ``target``, or None.
        interface: The original's.
        base: What the original answered.
        hardened: What the hardened graph answered, or None where it was not run.
        detector: What the detector answered, or None without one.
        threshold: Of the detector, where known.
    """
    verdicts = None if detector is None else detector.clean
    scores, odd = None, None
    if detector is not None and isinstance(verdicts, Verdicts):
        works, caught = _works(base, triggered), detector.triggered
        none = np.zeros(0, np.float32)
        attacked = (none, none)
        if works is not None and isinstance(caught, Verdicts):
            attacked = (caught.score[works], caught.p_value[works])
        scores = Scores(verdicts.score, verdicts.p_value, *attacked, threshold)
        odd = most_unusual(samples, base.clean.classes, verdicts)
    last = detector if detector is not None else hardened
    return Details(inputs_of(samples, interface), scores, odd, _attacked(triggered, base, last))


def _works(base: Answers, triggered: Samples | None) -> BoolArray | None:
    """On which triggered samples the attack on the original works."""
    if triggered is None or base.triggered is None:
        return None
    assert triggered.y is not None and triggered.target is not None
    hit = base.triggered.classes == triggered.target
    return np.asarray(hit & victims(triggered.y, triggered.target))


def _attacked(triggered: Samples | None, base: Answers, last: Answers | None) -> Shown | None:
    if triggered is None or base.triggered is None or last is None or last.triggered is None:
        return None
    assert triggered.y is not None and triggered.target is not None
    rows = np.flatnonzero(victims(triggered.y, triggered.target))
    # The first of each class, then the second of each, and so on.
    labels = triggered.y[rows]
    rounds = np.zeros(len(rows), np.int64)
    for label in np.unique(labels):
        own = labels == label
        rounds[own] = np.arange(own.sum())
    chosen = rows[np.lexsort((labels, rounds))][:SHOWN]
    given = last.triggered
    return _shown(triggered, chosen, base.triggered.classes, given.classes,
                  given if isinstance(given, Verdicts) else None)  # fmt: skip


def _shown(
    samples: Samples,
    rows: IntArray,
    original: IntArray,
    answered: IntArray,
    verdicts: Verdicts | None,
) -> Shown:
    return Shown(
        x=samples.x[rows],
        original=original[rows],
        answered=answered[rows],
        truth=None if samples.y is None else samples.y[rows],
        p_value=None if verdicts is None else verdicts.p_value[rows],
        flagged=None if verdicts is None else verdicts.flagged[rows],
    )
