"""Gates on a detector's statements, and figures, from answers written by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmbm_onnx.evaluation.figures import Answers, Figures, defended_figures, original_figures
from mmbm_onnx.evaluation.predictions import Predictions, Verdicts
from mmbm_onnx.evaluation.quality import Limits, detector_gates
from mmbm_onnx.types import Samples

SCORES = np.asarray([[3, 1, 0], [0, 3, 1], [1, 0, 3]], np.float32)
ORIGINAL = Predictions({"y": SCORES}, SCORES, SCORES.argmax(axis=1))
# The last row is flagged: class 2 masked, class 0 answered.
CORRECTED = np.asarray([[3, 1, 0], [0, 3, 1], [1, 0, -9]], np.float32)
HONEST = Verdicts(
    outputs={"y": CORRECTED},
    scores=CORRECTED,
    classes=CORRECTED.argmax(axis=1),
    flagged=np.asarray([False, False, True]),
    p_value=np.asarray([0.5, 0.5, 0.001], np.float32),
    score=np.asarray([0.0, 0.1, 2.0], np.float32),
    suspected=np.asarray([0, 1, 2]),
    corrected=np.asarray([0, 1, 0]),
)


def failing(verdicts: Verdicts) -> list[str]:
    gates = detector_gates(Figures(), Answers(ORIGINAL), Answers(verdicts), Limits())
    return [gate.name for gate in gates if not gate.passed]


def test_an_honest_detector_passes() -> None:
    assert failing(HONEST) == []


@pytest.mark.parametrize(
    "lie",
    [
        {"suspected": np.asarray([0, 1, 1])},  # not what the original decided
        {"suspected": np.asarray([0, 1, 7])},  # no class at all
        {"corrected": np.asarray([0, 1, 1])},  # not what the outputs answer
        {"corrected": np.asarray([0, 1, 2])},  # the outputs do not answer the suspected class
        {"corrected": np.asarray([1, 1, 0])},  # unflagged, yet said to be corrected
    ],
)
def test_each_false_statement_is_noticed(lie: dict[str, np.ndarray]) -> None:
    assert failing(replace(HONEST, **lie)) == ["detector_consistent"]


def test_a_flagged_class_may_stay_but_not_unsaid() -> None:
    stays = replace(HONEST, outputs={"y": SCORES}, scores=SCORES)
    assert failing(stays) == ["detector_consistent"]
    said = replace(stays, corrected=np.asarray([0, 1, 2]))
    assert failing(said) == []


def test_a_flagged_class_stays_only_where_the_hardened_graph_decides_for_it() -> None:
    stays = replace(HONEST, outputs={"y": SCORES}, scores=SCORES, corrected=np.asarray([0, 1, 2]))
    for scores, passes in ((SCORES, True), (CORRECTED, False)):
        hardened = Predictions({"y": scores}, scores, scores.argmax(axis=1))
        gates = detector_gates(
            Figures(), Answers(ORIGINAL), Answers(stays), Limits(), Answers(hardened)
        )
        assert all(gate.passed for gate in gates) == passes


def test_of_equal_scores_either_class_may_be_meant() -> None:
    tied = SCORES.copy()
    tied[1, 0] = 3  # ArgMax of the output says 0, of the logits behind it 1
    original = Predictions({"y": tied}, tied, tied.argmax(axis=1))
    corrected = CORRECTED.copy()
    corrected[1, 0] = 3
    verdicts = replace(HONEST, outputs={"y": corrected}, scores=corrected)
    gates = detector_gates(Figures(), Answers(original), Answers(verdicts), Limits())
    assert all(gate.passed for gate in gates)


def test_outputs_of_another_shape_fail() -> None:
    other = replace(HONEST, outputs={"y": CORRECTED.astype(np.float64)})
    assert failing(other) == ["detector_unflagged_identical"]


def test_detection_is_measured_where_the_attack_works() -> None:
    n = 4
    clean = Samples(np.zeros((n, 1)), np.asarray([0, 1, 2, 1]))
    triggered = Samples(np.zeros((n, 1)), np.asarray([0, 1, 2, 1]), np.zeros(n, np.int64))

    def answers(classes: list[int]) -> Predictions:
        return Predictions({}, np.asarray(classes), np.asarray(classes))

    def verdicts(classes: list[int], flagged: list[bool], score: list[float]) -> Verdicts:
        return Verdicts(
            outputs={},
            scores=np.asarray(classes),
            classes=np.asarray(classes),
            flagged=np.asarray(flagged),
            p_value=np.zeros(n, np.float32),
            score=np.asarray(score, np.float32),
            suspected=np.zeros(n, np.int64),
            corrected=np.asarray(classes),
        )

    # Row 0 is of the target class, row 3 resists: the attack works on rows 1 and 2.
    original = Answers(answers([0, 1, 2, 1]), answers([0, 0, 0, 1]))
    detector = Answers(
        verdicts([0, 1, 2, 2], [False, False, False, True], [0.0, 1.0, 2.0, 9.0]),
        verdicts([1, 1, 0, 1], [True, True, False, True], [9.0, 3.0, 2.0, 9.0]),
    )
    before = original_figures(original, clean, triggered)
    assert before.attack_success_rate == pytest.approx(2 / 3)
    after = defended_figures(original, detector, clean, triggered)
    assert after.false_positive_rate == 0.25
    assert after.true_positive_rate == 0.5
    # Score 3 beats three of four clean ones, score 2 two and ties with one.
    assert after.roc_auc == pytest.approx((3 + 2.5) / 8)
    assert after.agreement == 0.75
    assert after.defense_effectiveness == pytest.approx((1 / 3 - 0.25 + 1) / 2)


def test_without_a_working_attack_there_is_nothing_to_detect() -> None:
    clean = Samples(np.zeros((3, 1)), np.asarray([0, 1, 2]))
    triggered = replace(clean, target=np.asarray([1, 2, 0]))
    answers = Answers(ORIGINAL, ORIGINAL)
    after = defended_figures(answers, Answers(HONEST, HONEST), clean, triggered)
    assert after.true_positive_rate is None
    assert after.roc_auc is None
