"""Are the labels in another order than the model's outputs? Told by the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmbm_onnx.types import IntArray

MIN_GAIN = 0.05
"""A mapping of labels that raises the accuracy by so much is taken for the true order."""

CLEAR_RECALL = 0.8
"""So is one of fewer samples, if this share of each mapped class and more agrees with it."""

LOW_RECALL = 0.2
"""A class with a smaller share of its samples decided as labelled is warned of."""

_MIN_MOVED = 2
_CLEAR_MOVED = 5
_MOST_LINES = 5


def confusion(predicted: IntArray, y: IntArray, classes: int) -> npt.NDArray[np.int64]:
    """Number of samples by label and decision, ``(classes, classes)``."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (y, predicted), 1)
    return counts


def relabelling(counts: npt.NDArray[np.int64], accuracy: float) -> list[tuple[int, int]]:
    """Labels and the other outputs that their samples go to, if one-to-one explains much more.

    For accuracies that are implausible anyway: a mapping of weak majorities is told as well.

    Args:
        counts: From `confusion`.
        accuracy: Share of samples decided as labelled.
    """
    present = np.flatnonzero(counts.sum(axis=1))
    outputs = counts[present].argmax(axis=1)
    if len(set(outputs.tolist())) < len(present):
        return []
    explained = float(counts[present, outputs].sum()) / float(counts.sum())
    if explained < max(2 * accuracy, 0.5):
        return []
    return [(int(a), int(b)) for a, b in zip(present, outputs, strict=True) if a != b]


def swapped(counts: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Labels whose samples mostly go to the output of another, each of which goes elsewhere too.

    A class that is merely confused with another goes to an output that has its own samples; such
    labels, and a single one that goes to an output without samples, are left out.

    Args:
        counts: From `confusion`.

    Returns:
        Pairs of label and output, empty unless they raise the accuracy considerably: by
        `MIN_GAIN`, or with `CLEAR_RECALL` of at least five samples of each class.
    """
    totals = counts.sum(axis=1)
    present = [int(label) for label in np.flatnonzero(totals)]
    best = {label: int(counts[label].argmax()) for label in present}
    target = {
        label: output
        if 2 * counts[label, output] > totals[label] and totals[label] >= _MIN_MOVED
        else label
        for label, output in best.items()
    }
    while True:
        taken = list(target.values())
        back = [a for a, b in target.items() if a != b and taken.count(b) > 1]
        if not back:
            break
        target.update({label: label for label in back})
    moved = {a: b for a, b in target.items() if a != b}
    # A chain of one label ends at an output that no label has.
    moved = {a: b for a, b in moved.items() if b in moved or a in moved.values()}
    if not moved:
        return []
    gain = sum(int(counts[a, b] - counts[a, a]) for a, b in moved.items())
    clear = all(
        totals[a] >= _CLEAR_MOVED and counts[a, b] >= CLEAR_RECALL * totals[a]
        for a, b in moved.items()
    )
    if gain < MIN_GAIN * float(totals.sum()) and not clear:
        return []
    return sorted(moved.items())


def low_recalls(
    counts: npt.NDArray[np.int64], class_names: Sequence[str], source: str
) -> list[str]:
    """A warning for each class of which less than `LOW_RECALL` is decided as labelled."""
    totals, right = counts.sum(axis=1), counts.diagonal()
    low = [int(label) for label in np.flatnonzero(right < LOW_RECALL * totals)]
    lines = [
        f"{source}: class {title(label, class_names)}: only {right[label]} of {totals[label]} "
        "samples are decided as labelled; check its labels"
        for label in low[:_MOST_LINES]
    ]
    if len(low) > _MOST_LINES:
        lines.append(
            f"{source}: so are less than {LOW_RECALL:.0%} of {len(low) - _MOST_LINES} more classes"
        )
    return lines


def describe_order(mapping: Sequence[tuple[int, int]], class_names: Sequence[str]) -> str:
    """What is wrong with the order, and the way out."""
    shown = ", ".join(f"{_name(label, class_names)} -> output {out}" for label, out in mapping[:4])
    return (
        f"the labels are in another order than the model's outputs: {shown}"
        f"{', ...' if len(mapping) > 4 else ''}; rename the class folders to the outputs' "
        "indices, or reorder y"
    )


def _name(label: int, class_names: Sequence[str]) -> str:
    if label < len(class_names):
        return f"folder {class_names[label]!r} (index {label})"
    return f"label {label}"


def title(label: int, class_names: Sequence[str]) -> str:
    """What messages call a class: its name in quotes where it is known, else its index."""
    return f"{class_names[label]!r}" if label < len(class_names) else str(label)
