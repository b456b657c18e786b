"""Answers of two runtimes to the same samples, compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.portability.networks import OUTPUT
from mmbm_onnx.types import DETECTOR_OUTPUTS

_FLAGGED, _P_VALUE = "mmbm_flagged", "mmbm_p_value"
_DECIDED = (_FLAGGED, "mmbm_suspected_class", "mmbm_corrected_class")

Answers = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Found:
    """What a runtime made of a graph.

    Attributes:
        samples: How many there were.
        flagged: How many of them were flagged; None without a detector.
        differ: How many were decided in another way: another class, or another flag.
        logits: Largest difference of a logit.
        largest: Largest logit there is.
        p_value: Largest difference of a p-value; None without a detector.
        kept: Whether what is not flagged has the bits of the original in the same runtime; None
            without a detector.
    """

    samples: int
    flagged: int | None
    differ: int
    logits: float
    largest: float
    p_value: float | None
    kept: bool | None


def compare(expected: Answers, found: Answers, original: Answers) -> Found:
    """Compare.

    Args:
        expected: What the graph answers elsewhere.
        found: What it answers here.
        original: What the original answers here.

    Raises:
        ValueError: Outputs differ in name, order, type or shape.
    """
    for name, shown in (("expected", expected), ("found", found)):
        told = [(key, value.dtype.name, value.shape) for key, value in shown.items()]
        if name == "expected":
            wanted = told
        elif told != wanted:
            raise ValueError(f"outputs are {told}, not {wanted}")
    before, after = (answers[OUTPUT].astype(np.float64) for answers in (expected, found))
    differ = before.argmax(1) != after.argmax(1)
    detects = set(DETECTOR_OUTPUTS) <= set(expected)
    for name in _DECIDED if detects else ():
        differ |= expected[name] != found[name]
    # Those flagged in one of the two alone have other answers, and count as decisions.
    same = expected[_FLAGGED] == found[_FLAGGED] if detects else np.ones(len(before), bool)
    return Found(
        samples=len(before),
        flagged=int(expected[_FLAGGED].sum()) if detects else None,
        differ=int(differ.sum()),
        logits=float(np.abs(before - after)[same].max()),
        largest=float(np.abs(original[OUTPUT].astype(np.float64)).max()),
        p_value=float(np.abs(expected[_P_VALUE] - found[_P_VALUE]).max()) if detects else None,
        kept=_kept(found, original) if detects else None,
    )


def _kept(found: Answers, original: Answers) -> bool:
    usual = ~found[_FLAGGED]
    return found[OUTPUT][usual].tobytes() == original[OUTPUT][usual].tobytes()


def in_short(error: Exception, most: int = 240) -> str:
    """An error in one line, without the paths of this machine."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    line = re.sub(r"(?:/[\w.\-]+){2,}/([\w.\-]+)", r"\1", line)
    return line if len(line) <= most else f"{line[:most]}..."
