"""The decision, on a model whose every number the test chooses."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting_helpers import elementwise, interface, ops, parse, run_named, serialized, site

from mmbm_onnx import types
from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation import predictions
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.null import Null, fit_null, flags, p_values
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds

BOUND = np.asarray([3, 6, 9, 4], np.float32)
CONFORMAL = fit_null(np.random.default_rng(5).integers(-3, 8, 399).astype(np.float32), 0.1)
STEADY = fit_null(CONFORMAL.scores, 0.1, steady=True)
GAUSSIAN = fit_null(np.asarray([-1, 0, 1, 2, 3, 0, 1], np.float32), 0.1)
LIMITS = {np.dtype(np.float16): 16384.0}


def expected(logits: np.ndarray, bounded: np.ndarray, null: Null) -> dict[str, np.ndarray]:
    """What the detector must answer, from both branches' logits, in numpy."""
    wide, other = logits.astype(np.float32), bounded.astype(np.float32)
    suspected = logits.argmax(1)
    mask = np.arange(logits.shape[1]) == suspected[:, None]

    def margin(values: np.ndarray) -> np.ndarray:
        return values[mask] - np.where(mask, np.float32(-np.inf), values).max(1)

    with np.errstate(invalid="ignore"):
        score = margin(wide) - margin(other)
    score[np.isnan(wide).any(1) | np.isnan(other).any(1)] = np.nan
    flagged = flags(null, score)
    limit = LIMITS.get(logits.dtype, 1e38)
    finite = np.clip(np.nan_to_num(other, nan=-limit, posinf=limit, neginf=-limit), -limit, limit)
    low = finite.min(1, keepdims=True)
    masked = np.where(mask, low - np.float32(1) - np.abs(low) * np.float32(0.125), finite)
    masked = masked.astype(logits.dtype)
    return {
        "logits": np.where(flagged[:, None], masked, logits),
        "mmbm_flagged": flagged,
        "mmbm_p_value": p_values(null, score),
        "mmbm_score": score,
        "mmbm_suspected_class": suspected,
        "mmbm_corrected_class": np.where(flagged, masked.argmax(1), suspected),
    }


def assert_answers(answers, wanted, *, p_atol=0.0):
    assert list(answers) == list(wanted)
    for name, value in wanted.items():
        assert answers[name].dtype == value.dtype, name
        if name == "mmbm_p_value":
            assert np.allclose(answers[name], value, rtol=0, atol=p_atol)
        else:
            assert np.array_equal(answers[name], value, equal_nan=value.dtype.kind == "f"), name


def detector(model, null=CONFORMAL, bound=BOUND, dtype=np.float32, **options):
    before = serialized(model)
    where = site("act", 4, dtype=dtype)
    built = build_detector(
        model, interface(4, dtype=dtype, **options), [where], Bounds({"act": bound}), null
    )
    assert serialized(model) == before
    check_written(built)
    check_signature(model, built, DETECTOR_OUTPUTS)
    return built


def integers(n=2000, dtype=np.float32, high=15) -> np.ndarray:
    return np.random.default_rng(0).integers(-4, high, (n, 4)).astype(dtype)


def both_branches(x: np.ndarray, shift: float = 0.0, bound=BOUND) -> tuple[np.ndarray, np.ndarray]:
    act = np.maximum(x, 0)
    return act - x.dtype.type(shift), np.minimum(act, bound.astype(x.dtype)) - x.dtype.type(shift)


@pytest.mark.parametrize(
    "null", [CONFORMAL, STEADY, GAUSSIAN], ids=["conformal", "steady", "gaussian"]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 24])
def test_every_answer_equals_the_numpy_reference(opset, dtype, null):
    x = integers(dtype=dtype)
    wanted = expected(*both_branches(x), null)
    # The rows are full of ties: between classes, and between scores and the null.
    assert np.isin(wanted["mmbm_score"], null.scores).mean() > 0.4
    assert 0.02 < wanted["mmbm_flagged"].mean() < 0.9
    built = detector(elementwise(4, dtype, opset), null, dtype=dtype)
    p_atol = 0.0 if null is CONFORMAL else 2e-6
    assert_answers(run_named(built, x=x), wanted, p_atol=p_atol)


@pytest.mark.parametrize("null", [CONFORMAL, STEADY], ids=["conformal", "steady"])
def test_the_p_value_and_the_flag_agree(null):
    answers = run_named(detector(elementwise(4), null), x=integers())
    assert np.array_equal(answers["mmbm_flagged"], answers["mmbm_p_value"] <= np.float32(0.1))


@pytest.mark.parametrize("steady", [False, True])
def test_real_scores_equal_the_numpy_reference(steady):
    x = np.random.default_rng(3).normal(4, 5, (1500, 4)).astype(np.float32)
    scores = np.random.default_rng(4).normal(2, 2, 777).astype(np.float32)
    null = fit_null(scores, 0.07, steady=steady)
    answers = run_named(detector(elementwise(4, shift=0.3), null), x=x)
    wanted = expected(*both_branches(x, 0.3), null)
    assert_answers(answers, wanted, p_atol=1e-6 if steady else 0.0)


@pytest.mark.parametrize(
    ("dtype", "shift"),
    [
        (dtype, shift)
        for dtype in (np.float16, np.float32, np.float64)
        for shift in (0.0, 500.0, 30000.0, 1e30)
        if shift < float(np.finfo(dtype).max)
    ],
)
def test_flagged_rows_are_finite_and_never_the_suspected_class(dtype, shift):
    x = integers(dtype=dtype, high=2000)
    bound = np.asarray([1, 2, 700, 4], np.float32)
    # Far from zero the margins vanish in rounding: flag everything, to look at the masking.
    null = fit_null(np.arange(-400, -300).astype(np.float32) * 1000, 0.05)
    answers = run_named(detector(elementwise(4, dtype, shift=shift), null, bound, dtype), x=x)
    assert answers["mmbm_flagged"].all()
    assert np.isfinite(answers["logits"]).all()
    decided = answers["logits"].argmax(1)
    assert (decided != answers["mmbm_suspected_class"]).all()
    assert np.array_equal(decided, answers["mmbm_corrected_class"])
    rows = np.arange(len(x))
    masked = answers["logits"][rows, answers["mmbm_suspected_class"]]
    assert (masked == answers["logits"].min(1)).all()
    assert ((answers["logits"] == masked[:, None]).sum(1) == 1).all()
    _, bounded = both_branches(x, shift, bound)
    kept = np.arange(4) != answers["mmbm_suspected_class"][:, None]
    near = np.abs(bounded) < LIMITS.get(np.dtype(dtype), 1e38)
    assert np.array_equal(answers["logits"][kept & near], bounded[kept & near])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_inputs_that_are_not_finite(dtype):
    x = integers(300, dtype)
    x[0], x[1, 2], x[2] = np.nan, np.inf, np.inf
    x[3, 1] = np.nan
    answers = run_named(detector(elementwise(4, dtype), dtype=dtype), x=x)
    odd = answers["mmbm_flagged"][:4]
    assert odd.all() and np.isfinite(answers["logits"][:4]).all()
    assert np.isnan(answers["mmbm_score"][[0, 2, 3]]).all()
    assert answers["mmbm_score"][1] == np.inf
    assert (answers["mmbm_p_value"][:4] == np.float32(1 / 400)).all()
    assert (answers["mmbm_corrected_class"][:4] != answers["mmbm_suspected_class"][:4]).all()
    ordinary = expected(*both_branches(x[4:]), CONFORMAL)
    assert_answers({name: value[4:] for name, value in answers.items()}, ordinary)


def test_minus_infinity_as_a_score_is_not_flagged():
    model = parse("g (float[N, 2] x) => (float[N, 2] logits) { act = Relu(x) logits = Log(act) }")
    built = build_detector(
        model,
        interface(2),
        [site("act", 2)],
        Bounds({"act": np.asarray([1, 1], np.float32)}),
        CONFORMAL,
    )
    # log 5 - log 3 against log 1 - log 1; then log 5 - log 0 against log 1 - log 0.
    answers = run_named(built, x=np.asarray([[5, 3], [5, 0]], np.float32))
    assert answers["mmbm_score"][0] == pytest.approx(np.log(5 / 3))
    assert np.isnan(answers["mmbm_score"][1]) and answers["mmbm_flagged"][1]
    assert np.isfinite(answers["logits"][1]).all()


def test_two_classes():
    model = elementwise(2)
    bound = Bounds({"act": np.asarray([2, 5], np.float32)})
    built = build_detector(model, interface(2), [site("act", 2)], bound, CONFORMAL)
    check_written(built)
    x = np.random.default_rng(1).integers(-3, 30, (1000, 2)).astype(np.float32)
    answers = run_named(built, x=x)
    wanted = expected(*both_branches(x, bound=bound["act"]), CONFORMAL)
    assert_answers(answers, wanted)
    flagged = answers["mmbm_flagged"]
    assert flagged.any() and not flagged.all()
    other = 1 - answers["mmbm_suspected_class"]
    assert np.array_equal(answers["mmbm_corrected_class"][flagged], other[flagged])


def test_float64_classes_that_float32_cannot_tell_apart():
    x = np.asarray([[1.0, 1.0 + 1e-12, 0, 0]] * 2, np.float64)
    x[1] *= 8
    answers = run_named(detector(elementwise(4, np.float64), dtype=np.float64), x=x)
    assert answers["mmbm_suspected_class"].tolist() == [1, 1]


@pytest.mark.parametrize("batch", [1, 7])
def test_a_fixed_batch_stays_fixed(batch):
    model = elementwise(4, batch=str(batch))
    built = detector(model, batch=batch)
    for info in built.graph.output:
        assert info.type.tensor_type.shape.dim[0].dim_value == batch
    x = integers(batch)
    assert_answers(run_named(built, x=x), expected(*both_branches(x), CONFORMAL))


def test_a_dynamic_batch_keeps_its_name():
    built = detector(elementwise(4, batch="samples"))
    for info in built.graph.output:
        assert info.type.tensor_type.shape.dim[0].dim_param == "samples"
    x = integers(1)
    assert_answers(run_named(built, x=x), expected(*both_branches(x), CONFORMAL))


def test_the_appended_outputs_are_vectors_of_their_types():
    built = detector(elementwise(4))
    infos = built.graph.output[1:]
    assert [info.name for info in infos] == list(DETECTOR_OUTPUTS)
    assert [info.type.tensor_type.elem_type for info in infos] == [9, 1, 1, 7, 7]
    assert all(len(info.type.tensor_type.shape.dim) == 1 for info in infos)


def test_below_ir_4_the_inputs_stay_the_same():
    built = detector(elementwise(4, opset=9, ir=3))
    assert [tensor.name for tensor in built.graph.initializer] == ["shift"]
    assert [info.name for info in built.graph.input] == ["x", "shift"]
    x = integers()
    assert_answers(run_named(built, x=x), expected(*both_branches(x), CONFORMAL))


def test_the_same_twice_gives_the_same_bytes():
    assert serialized(detector(elementwise(4))) == serialized(detector(elementwise(4)))


def test_a_scalar_bound():
    bound = np.asarray(5, np.float32)
    answers = run_named(detector(elementwise(4), bound=bound), x=integers())
    assert_answers(answers, expected(*both_branches(integers(), bound=bound), CONFORMAL))


def test_other_sites_are_left_alone():
    model = elementwise(4)
    sites = [site("act", 4), site("elsewhere", 4)]
    built = build_detector(model, interface(4), sites, Bounds({"act": BOUND}), CONFORMAL)
    assert ops(built.graph.node).count("Min") == 1


def test_an_old_opset_is_refused_with_the_way_out():
    with pytest.raises(RewriteError, match=r"opset 9 or later, the model has 8.*--no-detector"):
        detector(elementwise(4, opset=8))


@pytest.mark.parametrize("name", DETECTOR_OUTPUTS)
def test_a_taken_output_name_is_refused(name):
    model = elementwise(4)
    model.graph.node[0].output[0] = name
    model.graph.node[1].input[0] = name
    with pytest.raises(RewriteError, match=name):
        build_detector(model, interface(4), [site(name, 4)], Bounds({name: BOUND}), CONFORMAL)


def test_logits_that_no_bound_reaches_are_refused():
    model = parse(
        "g (float[N, 4] x) => (float[N, 4] logits, float[N, 4] act)"
        "{ act = Relu(x) logits = Neg(x) }"
    )
    with pytest.raises(RewriteError, match="'logits' depend on no bounded activation"):
        detector(model)


def test_logits_that_are_not_in_the_graph_are_refused():
    with pytest.raises(RewriteError, match="produces the logits 'nothing'"):
        detector(elementwise(4), logits="nothing")


def test_the_appended_outputs_are_named_in_one_place():
    assert DETECTOR_OUTPUTS is types.DETECTOR_OUTPUTS is predictions.DETECTOR_OUTPUTS
