"""How clean samples score, and what the detector answers on samples it was not fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import toy_models
from onnx import numpy_helper

from mmbm_onnx.evaluation.predictions import Predictions, predict_detector
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.pipeline import scoring as room
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.scoring import Scoring, score_clean
from mmbm_onnx.rewriting.cascade import build_cascade
from mmbm_onnx.rewriting.detector import build_detector, build_probe
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.runtime.batches import run_batches
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds, Samples

MODEL = toy_models.original()
SITES = find_sites(MODEL.proto).sites
FACE = find_interface(MODEL.proto)
IS_ODD = "mmbm_decision/is_odd"
LEARNED = Learned(Bounds({SITES[0].tensor: np.asarray(toy_models.BOUNDS, np.float32)}), [], 1)


def samples(n: int, seed: int, wrong: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.uniform(0, 0.3, (n, 4)).astype(np.float32)
    x[np.arange(n), y] += 0.5
    x[:, 3] = 0
    y[:wrong] = (y[:wrong] + 1) % 3
    return Samples(x, y)


def scored(fit: Samples, calibration: Samples, kind="evidence", **changes) -> Scoring:
    arguments = {"kind": kind, "seed": 0, **changes}
    run = Runner(FACE, None, 1, 64)
    return score_clean(run, MODEL.proto, FACE, SITES, LEARNED, fit, calibration, **arguments)


def test_evidence_is_made_of_all_clean_samples_and_calibration_comes_first() -> None:
    fit, calibration = samples(70, 0), samples(30, 1)
    found = scored(fit, calibration)
    assert found.evidence is not None
    assert found.warnings == ()
    assert len(found.scores) == 100
    assert np.array_equal(found.calibration, found.scores[:30])
    # What the final detector gives these very samples is lower than without them.
    assert found.expected.shape == (30,)
    assert found.expected.mean() < found.calibration.mean()
    built = build_detector(
        MODEL.proto, FACE, SITES, LEARNED.bounds, fit_null(found.scores, 0.1), found.evidence
    )
    given = predict_detector(Session(built, threads=1), FACE, calibration.x).score
    assert np.allclose(given, found.expected, atol=1e-3)


@pytest.mark.parametrize("odd", [0.05, 0.2])
def test_of_clean_samples_as_many_go_on_and_are_flagged_as_asked(odd: float) -> None:
    found = scored(samples(700, 0), samples(300, 1), read="original", odd=odd)
    assert found.evidence is not None and found.gate is not None and found.goes_on is not None
    assert found.goes_on.mean() == pytest.approx(odd, abs=0.002)
    null = fit_null(found.scores, odd / 5)  # by rank alone: a tail flags less of such even data
    parts = MODEL.proto, FACE, SITES, LEARNED.bounds, null, found.evidence, found.gate
    detector = with_outputs(build_cascade(*parts), [*DETECTOR_OUTPUTS, IS_ODD])
    told = [IS_ODD, "mmbm_flagged"]
    answers = run_batches(Session(detector, threads=1), FACE, samples(6000, 2).x, told, 500)
    goes_on, flagged = (answers[name] for name in told)
    assert 0.6 * odd < goes_on.mean() < 1.5 * odd
    assert not (flagged & ~goes_on).any()
    assert 0.4 * odd / 5 < flagged.mean() < 1.5 * odd / 5


def test_margins_alone_are_of_the_calibration_part() -> None:
    fit, calibration = samples(70, 0), samples(30, 1)
    found = scored(fit, calibration, kind="margin")
    assert found.evidence is None
    assert len(found.scores) == 30
    logits = calibration.x @ toy_models.WEIGHTS
    act = np.maximum(logits, 0)
    bounded = np.minimum(act, np.asarray(toy_models.BOUNDS, np.float32))

    def margins(values: np.ndarray) -> np.ndarray:
        decided = act.argmax(1)[:, None]
        own = np.take_along_axis(values, decided, 1)[:, 0]
        others = values.copy()
        np.put_along_axis(others, decided, -np.inf, 1)
        return own - others.max(1)

    gain = 1.0
    for item in MODEL.proto.graph.initializer:
        if item.name == "gain":
            gain = np.frombuffer(item.raw_data, np.float32)
    assert np.allclose(found.scores, margins(act * gain) - margins(bounded * gain), atol=1e-5)


def test_too_few_samples_fall_back_to_margins_and_say_so() -> None:
    found = scored(samples(10, 0), samples(9, 1))
    assert found.evidence is None
    assert len(found.scores) == 9
    assert found.warnings == (
        "the detector goes by the margin difference alone: fewer than 20 clean samples",
    )


def test_more_samples_than_fit_in_memory_are_drawn_from_the_fit_part(monkeypatch) -> None:
    monkeypatch.setattr(room, "_MOST", 60)
    found = scored(samples(200, 0), samples(30, 1))
    assert len(found.scores) == 60


def test_wrong_decisions_do_not_shape_a_class() -> None:
    fit, calibration = samples(100, 0), samples(60, 1)
    right = scored(fit, calibration).evidence
    wrong = scored(fit, replace(calibration, y=(calibration.y + 1) % 3)).evidence
    unlabelled = scored(replace(fit, y=None), replace(calibration, y=None)).evidence
    assert right is not None
    assert wrong is not None
    assert unlabelled is not None
    assert not np.allclose(right.sites[0].offsets, wrong.sites[0].offsets)
    assert np.allclose(right.sites[0].offsets, unlabelled.sites[0].offsets)


def test_verdicts_flag_by_scores_of_samples_left_out() -> None:
    fit, calibration = samples(70, 0), samples(30, 1)
    found = scored(fit, calibration)
    run = Runner(FACE, None, 1, 64)
    original = run.answers(MODEL.proto, calibration.x)
    bounded = run.answers(insert_bounds(MODEL.proto, SITES, LEARNED.bounds), calibration.x)
    null = fit_null(found.scores, 0.5)
    flagged = found.calibration > null.threshold
    assert flagged.any()
    assert not flagged.all()
    taken, agrees = found.corrected.score, bounded.classes == original.classes
    assert found.evidence is not None
    for usual in (-np.inf, float(np.median(taken[flagged & agrees])) + 1e-3, np.inf):
        evidence = replace(found.evidence, usual=usual)
        verdicts = replace(found, evidence=evidence).verdicts(null, original, bounded)
        assert np.array_equal(verdicts.flagged, flagged)
        assert np.array_equal(verdicts.classes[~flagged], original.classes[~flagged])
        stays = flagged & agrees & (taken < usual)
        assert stays.any() == (usual > -np.inf)
        assert np.array_equal(verdicts.scores[stays], bounded.scores[stays])
        changed = verdicts.classes != original.classes
        assert np.array_equal(changed, flagged & ~stays)
        assert np.array_equal(verdicts.corrected, verdicts.classes)
        assert np.array_equal(verdicts.scores[~flagged], original.scores[~flagged])
        assert np.array_equal(verdicts.scores.argmax(1), verdicts.classes)


def test_verdicts_are_what_the_written_detector_answers() -> None:
    fit, calibration = samples(70, 0), samples(30, 1)
    run = Runner(FACE, None, 1, 64)
    found = scored(fit, calibration)
    assert found.evidence is not None
    hardened = insert_bounds(MODEL.proto, SITES, LEARNED.bounds)
    original, bounded = (run.answers(proto, calibration.x) for proto in (MODEL.proto, hardened))
    # That of samples it was fitted on: with their scores, nothing else differs.
    agrees = bounded.classes == original.classes
    usual = float(np.quantile(found.corrected.score[agrees], 0.9))
    found = replace(
        found, evidence=replace(found.evidence, usual=usual), calibration=found.expected
    )
    null = fit_null(np.full(9, -1000, np.float32), 0.5)
    built = build_detector(MODEL.proto, FACE, SITES, LEARNED.bounds, null, found.evidence)
    given = predict_detector(Session(built, threads=1), FACE, calibration.x)
    told = found.verdicts(null, original, bounded)
    assert 0 < (told.corrected == told.suspected).sum() < 30
    assert np.array_equal(told.flagged, given.flagged)
    assert np.array_equal(told.corrected, given.corrected)
    assert np.allclose(told.scores, given.scores, atol=1e-6)


def test_a_site_whose_first_axis_is_not_the_batch_is_left_out() -> None:
    # Two windows per sample: one activation has twice as many rows as there are samples.
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        windowed (float[N, 4] x) => (float[N, 3] logits) {
            halves = Reshape(x, by_two)
            windows = Relu(halves)
            joined = Reshape(windows, by_four)
            mixed = MatMul(joined, w)
            act = Relu(mixed)
            logits = MatMul(act, v)
        }"""
    )
    weights = {
        "by_two": np.asarray([-1, 2], np.int64),
        "by_four": np.asarray([-1, 4], np.int64),
        "w": rng.normal(size=(4, 5)).astype(np.float32),
        "v": rng.normal(size=(5, 3)).astype(np.float32),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    sites = find_sites(proto).sites
    assert [site.tensor for site in sites] == ["windows", "act"]
    face = find_interface(proto)
    bounds = {"windows": np.asarray([0.2, 0.2]), "act": np.full(5, 0.2)}
    bounds = Bounds({name: value.astype(np.float32) for name, value in bounds.items()})
    run = Runner(face, None, 1, 64)
    fit, calibration = samples(70, 0), samples(30, 1)
    found = score_clean(
        run,
        proto,
        face,
        sites,
        Learned(bounds, [], 1),
        fit,
        calibration,
        kind="evidence",
        seed=0,
    )
    assert found.evidence is not None
    assert [site.tensor for site in found.evidence.sites] == ["act"]


@pytest.mark.parametrize("n", [1, 5])
def test_any_number_of_samples_can_be_probed(n: int) -> None:
    probe, outputs = build_probe(MODEL.proto, FACE, SITES, LEARNED.bounds)
    verdicts, summaries = Runner(FACE, None, 1, 64).probe(probe, outputs, samples(n, 0).x)
    assert verdicts.flagged.all()
    assert {value.shape for value in summaries.values()} == {(1, n, 3)}


def test_a_sequence_as_long_as_the_batch_is_no_batch() -> None:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        first (float[4, 4, 8] x) => (float[4, 3] logits) {
            xt = Transpose <perm = [1, 0, 2]> (x)
            a = MatMul(xt, w)
            act = Relu(a)
            pooled = ReduceMean <axes = [0], keepdims = 0> (act)
            logits = MatMul(pooled, v)
        }"""
    )
    weights = {"w": rng.normal(size=(8, 6)), "v": rng.normal(size=(6, 3))}
    proto.graph.initializer.extend(
        numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()
    )
    face, sites = find_interface(proto), find_sites(proto).sites
    bounds = Bounds({"act": np.full(sites[0].channels or 6, 0.2, np.float32)})
    probe, outputs = build_probe(proto, face, sites, bounds)
    x = rng.normal(size=(20, 4, 8)).astype(np.float32)
    _, summaries = Runner(face, None, 1, 4).probe(probe, outputs, x)
    assert summaries == {}


def test_of_equal_scores_none_is_decided() -> None:
    scores = np.asarray([[6, 2, 6], [6, 2, 5], [1, 2, 5]], np.float32)
    given = Predictions({}, scores, scores.argmax(1))
    assert room._decided(given, np.asarray([0, 0, 1])).tolist() == [False, True, False]
    named = Predictions({}, np.asarray([3, 4]), np.asarray([3, 4]))
    assert room._decided(named, np.asarray([3, 3])).tolist() == [True, False]
