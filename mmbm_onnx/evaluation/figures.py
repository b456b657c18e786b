"""What a graph answered on a clean and a triggered set, and the figures that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmbm_onnx.evaluation import metrics
from mmbm_onnx.evaluation.predictions import Predictions, Verdicts
from mmbm_onnx.types import Samples


@dataclass(frozen=True, slots=True)
class Figures:
    """What one graph achieved. All are fractions from 0 to 1, or None where not measured.

    Attributes:
        accuracy: On the clean set; None without labels.
        agreement: Share of clean samples decided as the original decides; None for the original.
        attack_success_rate: On the triggered set, see `metrics.attack_success_rate`.
        robust_accuracy: On the same samples, see `metrics.robust_accuracy`.
        defense_effectiveness: See `metrics.defense_effectiveness`; None for the original.
        false_positive_rate: Share of clean samples flagged; detectors only.
        true_positive_rate: Share flagged of the triggered samples on which the attack on the
            original works; detectors only.
        roc_auc: Area under the ROC curve of the score, those samples against the clean set.
    """

    accuracy: float | None = None
    agreement: float | None = None
    attack_success_rate: float | None = None
    robust_accuracy: float | None = None
    defense_effectiveness: float | None = None
    false_positive_rate: float | None = None
    true_positive_rate: float | None = None
    roc_auc: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """One graph's answers for the clean set and, where there is one, the triggered set."""

    clean: Predictions
    triggered: Predictions | None = None

    @property
    def sets(self) -> tuple[Predictions, ...]:
        """The answers, set by set."""
        return (self.clean,) if self.triggered is None else (self.clean, self.triggered)


def original_figures(answers: Answers, clean: Samples, triggered: Samples | None) -> Figures:
    """Figures of the original.

    Args:
        answers: What it answered.
        clean: Clean samples, with or without ``y``.
        triggered: Triggered samples with ``y`` and ``target``, or None.
    """
    figures = Figures()
    if clean.y is not None:
        figures = replace(figures, accuracy=metrics.accuracy(answers.clean.classes, clean.y))
    if triggered is None or answers.triggered is None:
        return figures
    assert triggered.y is not None and triggered.target is not None
    given = (answers.triggered.classes, triggered.y, triggered.target)
    return replace(
        figures,
        attack_success_rate=metrics.attack_success_rate(*given),
        robust_accuracy=metrics.robust_accuracy(*given),
    )


def defended_figures(
    original: Answers, defended: Answers, clean: Samples, triggered: Samples | None
) -> Figures:
    """Figures of a hardened graph or a detector beside the original; arguments as above."""
    before = original_figures(original, clean, triggered)
    figures = replace(
        original_figures(defended, clean, triggered),
        agreement=metrics.agreement(defended.clean.classes, original.clean.classes),
    )
    verdicts = defended.clean
    if isinstance(verdicts, Verdicts):
        rate = metrics.false_positive_rate(verdicts.flagged)
        figures = replace(figures, false_positive_rate=rate)
    if (
        before.accuracy is not None
        and figures.accuracy is not None
        and before.attack_success_rate is not None
        and figures.attack_success_rate is not None
    ):
        rating = metrics.defense_effectiveness(
            before.accuracy,
            figures.accuracy,
            before.attack_success_rate,
            figures.attack_success_rate,
        )
        figures = replace(figures, defense_effectiveness=rating)
    caught = defended.triggered
    if (
        triggered is None
        or original.triggered is None
        or not isinstance(verdicts, Verdicts)
        or not isinstance(caught, Verdicts)
    ):
        return figures
    assert triggered.y is not None and triggered.target is not None
    works = original.triggered.classes == triggered.target
    works &= metrics.victims(triggered.y, triggered.target)
    if not works.any():
        return figures
    rate = metrics.true_positive_rate(caught.flagged[works])
    figures = replace(figures, true_positive_rate=rate)
    attacked = caught.score[works]
    if np.isnan(attacked).any() or np.isnan(verdicts.score).any():
        return figures
    return replace(figures, roc_auc=metrics.roc_auc(attacked, verdicts.score))
