"""Running classifiers and detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy_models

from mmbm_onnx.errors import ModelError
from mmbm_onnx.evaluation.predictions import decisions, predict, predict_detector
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface


@pytest.fixture
def interface() -> Interface:
    return find_interface(toy_models.original_proto())


def test_the_largest_score_is_the_decision(interface: Interface) -> None:
    samples = toy_models.clean(31)
    answers = predict(Session(toy_models.original_proto()), interface, samples.x, batch_size=7)
    assert np.array_equal(answers.classes, samples.y)
    assert np.array_equal(answers.outputs["logits"], samples.x[:, :3])
    assert answers.finite.all()


def test_a_detector_tells_what_it_flagged_and_corrected(interface: Interface) -> None:
    samples = toy_models.triggered(30)
    verdicts = predict_detector(Session(toy_models.detector().proto), interface, samples.x)
    assert verdicts.flagged.all()
    assert (verdicts.suspected == toy_models.TARGET).all()
    assert np.array_equal(verdicts.corrected, verdicts.classes)
    attacked = samples.y != toy_models.TARGET
    assert np.array_equal(verdicts.classes[attacked], samples.y[attacked])
    assert verdicts.p_value.dtype == verdicts.score.dtype == np.float32


def test_a_plain_model_is_not_taken_for_a_detector(interface: Interface) -> None:
    with pytest.raises(ModelError, match="not a detector graph: it has no output mmbm_flagged"):
        predict_detector(Session(toy_models.original_proto()), interface, toy_models.clean().x)


def test_rows_that_are_not_finite_are_told(interface: Interface) -> None:
    x = toy_models.clean(4).x.copy()
    x[2, 0] = np.inf
    answers = predict(Session(toy_models.original_proto()), interface, x)
    assert not answers.finite[2]
    assert answers.finite[[0, 3]].all()


def test_an_output_may_hold_classes_but_nothing_else(interface: Interface) -> None:
    assert decisions(np.asarray([2, 0], np.int32), interface).tolist() == [2, 0]
    for wrong in (np.zeros((2, 5), np.float32), np.zeros(2, np.float32), np.zeros((2, 3), int)):
        with pytest.raises(ModelError, match=r"expected scores \(n, 3\)"):
            decisions(wrong, interface)
    with pytest.raises(ModelError, match="expected scores"):
        decisions(np.zeros((2, 3), np.float32), replace(interface, classes=4))
