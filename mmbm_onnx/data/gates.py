"""Is the clean set fit for use? Stop early, and say what is probably wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmbm_onnx.data.label_order import (
    confusion,
    describe_order,
    low_recalls,
    relabelling,
    swapped,
    title,
)
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import FloatArray, IntArray, Interface, Samples

MIN_SAMPLES = 20
"""Fewer samples in all are refused: neither bounds nor a null can be learned from them."""

MIN_PER_CLASS = 2
"""Fewer samples per class that occurs, in the mean, are refused: a split needs two."""

MAX_SAME = 0.9
"""A larger share of samples that are one and the same is refused."""

MIN_KAPPA = 0.25
"""Below this share of the way from chance to perfect, the accuracy is implausible."""

LOW_ACCURACY = 0.6
"""Below this, a plausible accuracy is warned of."""

_CONSTANT = 0.9
_MOST_NAMES = 5
_ROWS = 256


class AccuracyCheck(NamedTuple):
    """A plausible accuracy.

    Attributes:
        accuracy: Share of samples classified as labelled, 0 to 1.
        warnings: What is odd about it, one line each.
    """

    accuracy: float
    warnings: list[str]


def check_samples(
    samples: Samples, interface: Interface, *, for_learning: bool = True
) -> list[str]:
    """Make sure that samples can be used with a model at all.

    Args:
        samples: What was read.
        interface: The model's.
        for_learning: Whether bounds and a null are learned from them. A triggered set, which is
            only measured on, may be small, of one class, and full of copies.

    Returns:
        Warnings, one line each: classes without samples, no labels, exact duplicates.

    Raises:
        DataError: No samples, labels or targets outside the model's classes, wrong shape or dtype,
            values that are not finite; for learning also fewer than `MIN_SAMPLES`, fewer than
            `MIN_PER_CLASS` per class in the mean, one class only, or hardly anything but copies of
            one sample.
    """
    source, n = samples.source, len(samples)
    if n == 0:
        raise DataError(f"{source}: no samples")
    _check_x(samples, interface)
    _check_labels(samples, interface)
    if not for_learning:
        return []
    if n < MIN_SAMPLES:
        raise DataError(f"{source}: {n} samples are too few, at least {MIN_SAMPLES} are needed")
    return _check_classes(samples, interface) + _check_duplicates(samples)


def check_accuracy(
    logits: FloatArray,
    y: IntArray,
    interface: Interface,
    *,
    minimum: float | None = None,
    x: npt.NDArray[Any] | None = None,
    class_names: Sequence[str] = (),
    source: str = "clean set",
) -> AccuracyCheck:
    """Make sure that the original model knows the clean set; else its inputs are not its own.

    Implausible is an accuracy less than `MIN_KAPPA` of the way from chance to 1, where chance is
    the larger of 1 / classes and the share of the most common label. Of samples of one class
    chance cannot be told so; at least `LOW_ACCURACY` is then asked for, and a warning given.

    Args:
        logits: The original model's, ``(n, classes)``, n > 0.
        y: True labels, ``(n,)``.
        interface: The model's.
        minimum: Accuracy required beyond that, 0 to 1.
        x: The samples, to tell the range of their values in messages.
        class_names: Names in index order, for messages.
        source: Where the samples are from, for messages.

    Raises:
        DataError: The accuracy is implausible or below ``minimum``, or some labels are exchanged
            (`label_order.swapped`) however high it is; the message tells whether it looks like
            the wrong preprocessing or like another order of labels.
    """
    if logits.shape != (len(y), interface.classes) or len(y) == 0:
        raise DataError(
            f"{source}: logits of shape {logits.shape} for {len(y)} labels and "
            f"{interface.classes} classes"
        )
    if y.min() < 0 or y.max() >= interface.classes:
        raise DataError(
            f"{source}: labels outside the model's classes 0 to {interface.classes - 1}"
        )
    if not np.isfinite(logits).all():
        raise DataError(
            f"{source}: the model's logits are not finite on it{_range(x)}; wrong preprocessing?"
        )
    predicted = logits.argmax(axis=1)
    accuracy = float(np.mean(predicted == y))
    one_class = bool((y == y[0]).all())
    most_common = 0.0 if one_class else float(np.bincount(y).max()) / len(y)
    chance = max(1 / interface.classes, most_common)
    implausible = (accuracy - chance) / (1 - chance) < MIN_KAPPA
    if implausible or (one_class and accuracy < LOW_ACCURACY):
        advice = _advice(predicted, y, interface.classes, accuracy, class_names, x)
        raise DataError(
            f"{source}: the model's accuracy of {accuracy:.1%} on it is implausible (chance is "
            f"{chance:.1%}); {advice}"
        )
    counts = confusion(predicted, y, interface.classes)
    if mapping := swapped(counts):
        raise DataError(
            f"{source}: the model's accuracy on it is {accuracy:.1%}, and "
            f"{_mapped(counts, mapping):.1%} with some labels exchanged; "
            f"{describe_order(mapping, class_names)}"
        )
    if minimum is not None and accuracy < minimum:
        raise DataError(
            f"{source}: the model's accuracy of {accuracy:.1%} on it is below the required "
            f"{minimum:.1%}; check preprocessing and labels"
        )
    warnings = []
    if one_class:
        warnings.append(
            f"{source}: all samples are of one class ({y[0]}); a model that always answers so "
            "would pass, give samples of other classes too"
        )
    if accuracy < LOW_ACCURACY:
        warnings.append(
            f"{source}: the model's accuracy on it is only {accuracy:.1%}; check preprocessing "
            "and labels"
        )
    warnings += low_recalls(counts, class_names, source)
    return AccuracyCheck(accuracy, warnings)


def _mapped(counts: npt.NDArray[np.int64], mapping: Sequence[tuple[int, int]]) -> float:
    """The accuracy with labels read as these outputs."""
    right = int(np.trace(counts)) + sum(int(counts[a, b] - counts[a, a]) for a, b in mapping)
    return right / float(counts.sum())


def _check_x(samples: Samples, interface: Interface) -> None:
    x, wanted = samples.x, interface.input_shape
    fits = x.ndim == len(wanted) and all(
        axis in (None, length) for axis, length in zip(wanted[1:], x.shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join(["n", *("any" if a is None else str(a) for a in wanted[1:])])
        raise DataError(f"{samples.source}: shape {x.shape}, the model takes ({expected})")
    if x.dtype != interface.input_dtype:
        raise DataError(f"{samples.source}: {x.dtype}, the model takes {interface.input_dtype}")
    for start in range(0, len(x), _ROWS):
        finite = np.isfinite(x[start : start + _ROWS]).reshape(len(x[start : start + _ROWS]), -1)
        if not finite.all():
            first = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise DataError(f"{samples.source}: sample {first} has values that are not finite")


def _check_labels(samples: Samples, interface: Interface) -> None:
    source, classes = samples.source, interface.classes
    for name, labels in (("label", samples.y), ("target", samples.target)):
        if labels is None:
            continue
        if labels.shape != (len(samples),) or labels.dtype != np.int64:
            raise DataError(
                f"{source}: {name}s are {labels.dtype} of shape {labels.shape}, expected int64 "
                f"({len(samples)},)"
            )
        outside = np.flatnonzero((labels < 0) | (labels >= classes))
        if outside.size:
            raise DataError(
                f"{source}: {name} {labels[outside[0]]} of sample {outside[0]} is outside the "
                f"model's classes 0 to {classes - 1}"
            )


def _check_classes(samples: Samples, interface: Interface) -> list[str]:
    source, classes = samples.source, interface.classes
    if samples.y is None:
        return [
            f"{source}: no labels; decisions are compared with the original model's own, give y to "
            "measure accuracy"
        ]
    found = {int(label) for label in np.unique(samples.y)}
    present = len(found)
    if present == 1:
        raise DataError(f"{source}: all samples are of one class ({samples.y[0]})")
    if len(samples) < MIN_PER_CLASS * present:
        raise DataError(
            f"{source}: {len(samples)} samples for {present} classes are too few, at least "
            f"{MIN_PER_CLASS} per class are needed"
        )
    return _absent(samples, found, classes)


def check_decided(samples: Samples, interface: Interface, decided: IntArray) -> list[str]:
    """What the model's own decisions tell of samples without labels.

    Args:
        samples: What was read.
        interface: The model's.
        decided: Decisions of them, ``(n,)``.

    Returns:
        Warnings, one line each: classes that no sample is decided as. None where there are labels.
    """
    if samples.y is not None:
        return []
    return _absent(samples, {int(label) for label in np.unique(decided)}, interface.classes)


def _absent(samples: Samples, found: set[int], classes: int) -> list[str]:
    missing = [title(label, samples.class_names) for label in range(classes) if label not in found]
    if not missing:
        return []
    shown = f"{', '.join(missing[:_MOST_NAMES])}{', ...' if len(missing) > _MOST_NAMES else ''}"
    by = "" if samples.y is not None else ", by the model's own decisions"
    return [
        f"{samples.source}: {len(missing)} of {classes} classes have no sample ({shown}){by}; give "
        "some of each, else nearly all inputs of these are flagged"
    ]


def _check_duplicates(samples: Samples) -> list[str]:
    digests = [hashlib.blake2b(np.ascontiguousarray(row).data.cast("B")) for row in samples.x]
    counts = Counter(digest.digest() for digest in digests)
    n, most = len(samples), max(counts.values())
    if most > MAX_SAME * n:
        raise DataError(f"{samples.source}: {most} of {n} samples are the same")
    if len(counts) == n:
        return []
    return [
        f"{samples.source}: {n - len(counts)} of {n} samples are copies of others; copies on both "
        "sides of the split make the calibration too optimistic, remove them"
    ]


def _advice(
    predicted: IntArray,
    y: IntArray,
    classes: int,
    accuracy: float,
    class_names: Sequence[str],
    x: npt.NDArray[Any] | None,
) -> str:
    counts = confusion(predicted, y, classes)
    if mapping := relabelling(counts, accuracy) or swapped(counts):
        return describe_order(mapping, class_names)
    most = np.bincount(predicted, minlength=classes)
    if most.max() >= _CONSTANT * len(y):
        return (
            f"nearly every decision is class {int(most.argmax())}: wrong preprocessing (scale, "
            f"mean, std){_range(x)}, or samples that carry a trigger"
        )
    return f"wrong preprocessing (scale, mean, std, channel order){_range(x)}, or wrong labels"


def _range(x: npt.NDArray[Any] | None) -> str:
    if x is None or x.size == 0:
        return ""
    return f" (input values range from {float(x.min()):.4g} to {float(x.max()):.4g})"
