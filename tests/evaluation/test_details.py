"""What a verification keeps to be drawn is what was answered."""

from __future__ import annotations

import numpy as np
import toy_models

from mmbm_onnx.evaluation.details import SHOWN
from mmbm_onnx.evaluation.verification import VerifyResult, verify_graphs
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import FLAGGED, P_VALUE, SCORE


def verified(*, detector: bool = True, triggered: bool = True) -> VerifyResult:
    return verify_graphs(
        toy_models.original(),
        toy_models.hardened(),
        toy_models.clean(),
        detector=toy_models.detector() if detector else None,
        triggered=toy_models.triggered() if triggered else None,
    )


def test_scores_are_the_detectors_own() -> None:
    found = verified()
    assert found.details is not None and found.details.scores is not None
    scores = found.details.scores
    session = Session(toy_models.detector().proto)
    clean = session.run([SCORE, P_VALUE], {"x": toy_models.clean().x})
    np.testing.assert_array_equal(scores.clean, clean[0])
    np.testing.assert_array_equal(scores.clean_p, clean[1])
    assert len(scores.attacked) == found.measurements.triggered == 40
    assert scores.threshold is not None
    share = float(np.mean(scores.clean > scores.threshold))
    assert share == found.measurements.detector.false_positive_rate


def test_the_most_unusual_come_first_with_what_was_answered() -> None:
    found = verified().details
    assert found is not None and found.odd is not None and found.scores is not None
    assert len(found.odd) == SHOWN
    order = np.argsort(-found.scores.clean, kind="stable")[:SHOWN]
    np.testing.assert_array_equal(found.odd.x, toy_models.clean().x[order])
    np.testing.assert_array_equal(found.odd.p_value, found.scores.clean_p[order])


def test_triggered_samples_are_of_many_classes_and_none_of_the_targets() -> None:
    samples, found = toy_models.triggered(), verified().details
    assert found is not None and found.triggered is not None
    shown = found.triggered
    assert samples.y is not None and samples.target is not None
    others = np.unique(samples.y[samples.y != samples.target])
    assert set(shown.truth[: len(others)]) == set(others)
    session = Session(toy_models.detector().proto)
    assert shown.flagged.tolist() == session.run([FLAGGED], {"x": shown.x})[0].tolist()


def test_without_detector_or_triggered_set_there_is_less() -> None:
    plain = verified(detector=False).details
    assert plain is not None and plain.scores is None and plain.odd is None
    assert plain.triggered is not None and plain.triggered.flagged is None
    clean = verified(triggered=False).details
    assert clean is not None and clean.triggered is None
    assert clean.scores is not None and clean.scores.attacked.size == 0


def test_details_are_no_part_of_the_json_nor_of_equality() -> None:
    one, two = verified(), verified()
    assert one == two
    assert "details" not in one.to_dict()
