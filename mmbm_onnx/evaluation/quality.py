"""Gates on what a written graph answered, beside the original's answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import OptionError
from mmbm_onnx.evaluation.compare import rows_that_differ
from mmbm_onnx.evaluation.figures import Answers, Figures
from mmbm_onnx.evaluation.gates import Gate, at_least, at_most, holds
from mmbm_onnx.evaluation.predictions import Verdicts
from mmbm_onnx.types import BoolArray, IntArray

_ROUNDING = 1e-2  # of the largest score


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of the written graphs; all are fractions from 0 to 1.

    Attributes:
        max_accuracy_drop: Largest fall of accuracy below the original's, of the hardened graph
            and of the detector; without labels, the largest share of changed decisions.
        max_false_positive_rate: Largest share of clean samples flagged, or None for no gate.
        max_attack_success_rate: Largest ASR, or None for no gate.

    Raises:
        OptionError: A limit is not a fraction.
    """

    max_accuracy_drop: float = 0.02
    max_false_positive_rate: float | None = None
    max_attack_success_rate: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0.0 <= value <= 1.0:
                option = name.replace("_", "-")
                raise OptionError(f"--{option} is {value}, expected a fraction from 0 to 1")


def quality_gates(
    role: str, before: Figures, after: Figures, answers: tuple[Answers, Answers], limits: Limits
) -> list[Gate]:
    """Finite outputs, and accuracy held (or decisions, without labels).

    Args:
        role: ``"hardened"`` or ``"detector"``; begins the gates' names.
        before: Figures of the original.
        after: Figures of the judged graph.
        answers: Answers of the original and of the judged graph.
        limits: What is asked for.
    """
    original, judged = answers
    spoilt = sum(
        int((base.finite & ~own.finite).sum())
        for base, own in zip(original.sets, judged.sets, strict=True)
    )
    finite = at_most(
        f"{role}_not_finite",
        spoilt,
        0,
        unit="count",
        message="samples with an output that is not finite where the original's is",
    )
    if before.accuracy is not None and after.accuracy is not None:
        kept = at_most(
            f"{role}_accuracy_drop",
            before.accuracy - after.accuracy,
            limits.max_accuracy_drop,
            message=f"accuracy {after.accuracy:.2%}, the original's {before.accuracy:.2%}",
        )
    else:
        assert after.agreement is not None
        kept = at_least(
            f"{role}_agreement",
            after.agreement,
            1.0 - limits.max_accuracy_drop,
            message="share decided as the original decides (the clean set has no labels)",
        )
    return [finite, kept]


def detector_gates(
    after: Figures,
    original: Answers,
    detector: Answers,
    limits: Limits,
    hardened: Answers | None = None,
) -> list[Gate]:
    """Unflagged rows bit-identical, statements that fit the outputs, false positives.

    Args:
        after: Figures of the detector.
        original: Answers of the original.
        detector: Answers of the detector.
        limits: What is asked for.
        hardened: Answers of the hardened graph, whose decision a flagged class that stays must be.
    """
    differing, wrong, message = 0, 0, "unflagged samples whose outputs differ in any bit"
    bounded = [None] * len(original.sets) if hardened is None else hardened.sets
    for base, verdicts, given in zip(original.sets, detector.sets, bounded, strict=True):
        assert isinstance(verdicts, Verdicts)
        try:
            rows = rows_that_differ(base.outputs, verdicts.outputs)
        except ValueError as error:
            return [holds("detector_unflagged_identical", False, str(error))]
        differing += int((rows & ~verdicts.flagged).sum())
        truthful = _truthful(base.scores, verdicts)
        if given is not None:
            stays = verdicts.flagged & (verdicts.corrected == verdicts.suspected)
            truthful &= ~stays | _answers_with(given.scores, verdicts.suspected, _ROUNDING)
        wrong += int((~truthful).sum())
    gates = [
        at_most("detector_unflagged_identical", differing, 0, unit="count", message=message),
        at_most(
            "detector_consistent",
            wrong,
            0,
            unit="count",
            message="samples whose suspected or corrected class does not fit the outputs",
        ),
    ]
    if limits.max_false_positive_rate is not None:
        assert after.false_positive_rate is not None
        gates.append(
            at_most(
                "detector_false_positive_rate",
                after.false_positive_rate,
                limits.max_false_positive_rate,
                message="share of clean samples flagged",
            )
        )
    return gates


def attack_gate(role: str, after: Figures, limit: float) -> Gate:
    """The attack success rate is at most ``limit``."""
    assert after.attack_success_rate is not None
    return at_most(
        f"{role}_attack_success_rate",
        after.attack_success_rate,
        limit,
        message="share of triggered samples answered with the attacker's class",
    )


def _truthful(original: npt.NDArray[Any], verdicts: Verdicts) -> BoolArray:
    """Rows whose stated classes are what the outputs answer, another one only where flagged."""
    stated: BoolArray = verdicts.flagged | (verdicts.corrected == verdicts.suspected)
    told = _answers_with(original, verdicts.suspected)
    return stated & told & _answers_with(verdicts.scores, verdicts.corrected)


def _answers_with(output: npt.NDArray[Any], classes: IntArray, rounding: float = 0.0) -> BoolArray:
    """Rows whose answer is the class; of equal scores either (a softmax can make two equal).

    Args:
        output: Scores ``(n, classes)``, or classes ``(n,)``.
        classes: ``(n,)``.
        rounding: By how much of its largest score a graph may round otherwise.
    """
    if output.ndim == 1:
        return np.asarray(output == classes)
    inside = (classes >= 0) & (classes < output.shape[1])
    picked = output[np.arange(len(output)), np.where(inside, classes, 0)]
    least = output.max(axis=1)
    if rounding:
        wide = output.astype(np.float64)
        least = wide.max(axis=1) - rounding * np.abs(wide).max(axis=1)
    return np.asarray(inside & (picked >= least))
