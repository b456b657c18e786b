"""Figures of merit. NumPy in, plain floats out; every rate is a fraction from 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import DataError
from mmbm_onnx.types import BoolArray, IntArray


def accuracy(predictions: IntArray, labels: IntArray) -> float:
    """Share of predictions that are the true class (ACC).

    Args:
        predictions: Classes answered, int64 ``(n,)``.
        labels: True classes, int64 ``(n,)``.

    Raises:
        DataError: No samples, or the shapes differ.
    """
    _check("accuracy", predictions, labels)
    return float(np.mean(predictions == labels))


def agreement(predictions: IntArray, reference: IntArray) -> float:
    """Share of samples on which two graphs decide alike, both int64 ``(n,)``.

    Raises:
        DataError: No samples, or the shapes differ.
    """
    _check("agreement", predictions, reference)
    return float(np.mean(predictions == reference))


def victims(labels: IntArray, target: IntArray | int) -> BoolArray:
    """Which triggered samples count: those whose true class is not the attacker's, bool ``(n,)``.

    A sample of the target class is answered with it rightly, so it tells nothing of the attack
    (the convention of BackdoorBench, arXiv 2206.12654).

    Args:
        labels: True classes, int64 ``(n,)``.
        target: The attacker's class, of each sample int64 ``(n,)`` or of all.

    Raises:
        DataError: No sample counts, or the shapes differ.
    """
    goal = np.broadcast_to(np.asarray(target), labels.shape) if np.ndim(target) == 0 else target
    _check("attack success rate", labels, np.asarray(goal))
    counted: BoolArray = labels != goal
    if not counted.any():
        raise DataError(
            "attack success rate: every triggered sample is of the target class already; "
            "triggered samples of other classes are needed"
        )
    return counted


def attack_success_rate(predictions: IntArray, labels: IntArray, target: IntArray | int) -> float:
    """Share of the triggered samples that count (`victims`) and are answered with the target (ASR).

    Args:
        predictions: Classes answered for triggered samples, int64 ``(n,)``.
        labels: Their true classes, int64 ``(n,)``.
        target: The attacker's class, of each sample int64 ``(n,)`` or of all.

    Raises:
        DataError: No sample counts, or the shapes differ.
    """
    _check("attack success rate", predictions, labels)
    counted = victims(labels, target)
    return float(np.mean((predictions == target)[counted]))


def robust_accuracy(predictions: IntArray, labels: IntArray, target: IntArray | int) -> float:
    """Share of the same samples as `attack_success_rate` answered with their true class (RA).

    MMAC (arXiv 2308.04617) calls it PACC. Arguments and errors as there.
    """
    _check("robust accuracy", predictions, labels)
    counted = victims(labels, target)
    return float(np.mean((predictions == labels)[counted]))


def defense_effectiveness(
    accuracy_before: float, accuracy_after: float, success_before: float, success_after: float
) -> float:
    """Defense effectiveness rating: (max(0, fall of ASR) - max(0, fall of ACC) + 1) / 2 (DER).

    0.5 is a defense that does nothing, 1 one that ends the attack at no cost in accuracy (Zhu et
    al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization", arXiv
    2304.11823).

    Args:
        accuracy_before: ACC of the original, a fraction.
        accuracy_after: ACC of the defended graph.
        success_before: ASR of the original.
        success_after: ASR of the defended graph.

    Raises:
        ValueError: An argument is not a fraction.
    """
    for value in (accuracy_before, accuracy_after, success_before, success_after):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{value} is not a fraction from 0 to 1")
    gained = max(0.0, success_before - success_after)
    lost = max(0.0, accuracy_before - accuracy_after)
    return (gained - lost + 1.0) / 2.0


def false_positive_rate(flagged: BoolArray) -> float:
    """Share of clean samples that were flagged.

    Args:
        flagged: The detector's answers for clean samples, bool ``(n,)``.

    Raises:
        DataError: No samples.
    """
    return _share("false-positive rate", flagged)


def true_positive_rate(flagged: BoolArray) -> float:
    """Share of attacked samples that were flagged.

    Args:
        flagged: The detector's answers for samples on which the attack works, bool ``(n,)``.

    Raises:
        DataError: No samples.
    """
    return _share("true-positive rate", flagged)


def roc_auc(attacked: npt.NDArray[Any], clean: npt.NDArray[Any]) -> float:
    """Probability that an attacked sample scores above a clean one, ties counting half.

    The area under the ROC curve by its rank statistic (Mann and Whitney 1947).

    Args:
        attacked: Scores of attacked samples, ``(n,)``; infinities are allowed.
        clean: Scores of clean samples, ``(m,)``.

    Raises:
        DataError: One of the sets is empty, or a score is NaN.
    """
    if attacked.size == 0 or clean.size == 0:
        raise DataError("area under the ROC curve: one of the two sets of scores is empty")
    if np.isnan(attacked).any() or np.isnan(clean).any():
        raise DataError("area under the ROC curve: a score is not a number")
    ordered = np.sort(clean, axis=None)
    below = np.searchsorted(ordered, attacked.reshape(-1), side="left").astype(np.float64)
    up_to = np.searchsorted(ordered, attacked.reshape(-1), side="right").astype(np.float64)
    return float(np.mean((below + up_to) / 2.0) / ordered.size)


def _share(name: str, flags: BoolArray) -> float:
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise DataError(f"{name}: expected booleans (n,), got {flags.dtype} {flags.shape}")
    if flags.size == 0:
        raise DataError(f"{name}: no samples")
    return float(np.mean(flags))


def _check(name: str, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> None:
    if left.ndim != 1 or left.shape != right.shape:
        raise DataError(f"{name}: shapes {left.shape} and {right.shape} differ, expected (n,)")
    if left.size == 0:
        raise DataError(f"{name}: no samples")
