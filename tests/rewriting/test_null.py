from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.null import (
    Tail,
    fit_null,
    flags,
    leave_one_out_rate,
    p_values,
)


def normal(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, n).astype(np.float32)


@pytest.mark.parametrize(("count", "kind"), [(99, "conformal"), (98, "gaussian")])
def test_ranks_are_used_as_soon_as_there_are_enough_scores(count, kind):
    assert fit_null(normal(count), 0.01).kind == kind


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.07, 0.1, 0.29, 0.5, 0.9])
@pytest.mark.parametrize("count", [99, 100, 149, 199, 299, 1000])
def test_conformal_flags_are_those_with_a_p_value_of_at_most_the_rate(count, rate):
    # Whole numbers, so that most scores are tied with others.
    scores = np.random.default_rng(count).integers(-5, 60, count).astype(np.float32)
    null = fit_null(scores, rate)
    asked = np.arange(-8, 64, 0.5, dtype=np.float32)
    larger = (scores[None] >= asked[:, None]).sum(1)
    p = p_values(null, asked)
    assert p.dtype == np.float32
    assert np.array_equal(p, ((1 + larger) / (count + 1)).astype(np.float32))
    exact = (1 + larger) * 100 <= round(rate * 100) * (count + 1)
    assert np.array_equal(flags(null, asked), exact)
    assert exact.any() and not exact.all()


@pytest.mark.parametrize(
    ("count", "rate", "flagged"), [(99, 0.29, 29), (99, 0.07, 7), (999, 0.57, 570)]
)
def test_a_rate_that_binary_cannot_hold_loses_no_rank(count, rate, flagged):
    scores = np.arange(count, dtype=np.float32)
    null = fit_null(scores, rate)
    # Between the clean scores: the p-values are 1/(n+1), 2/(n+1), ... from above.
    assert flags(null, scores + np.float32(0.5)).sum() == flagged


def test_the_false_positive_rate_holds_for_any_distribution():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        clean = rng.lognormal(0, 2, 100 + 200).astype(np.float32)
        rates.append(flags(fit_null(clean[:100], 0.05), clean[100:]).mean())
    assert 0.035 < np.mean(rates) <= 0.055


def test_the_gaussian_tail():
    scores = normal(50)
    null = fit_null(scores, 0.01)
    assert null.mean == pytest.approx(scores.mean(), rel=1e-6)
    assert null.std == pytest.approx(scores.std(ddof=1), rel=1e-6)
    assert null.threshold == pytest.approx(null.mean + 2.3263 * null.std, rel=1e-4)
    asked = np.linspace(-8, 10, 400, dtype=np.float32)
    tail = [1 - NormalDist(null.mean, null.std).cdf(float(value)) for value in asked]
    assert np.allclose(p_values(null, asked), tail, atol=1e-6)
    assert np.array_equal(flags(null, asked), np.asarray(tail) <= 0.01)


@pytest.mark.parametrize("count", [50, 500], ids=["gaussian", "conformal"])
@pytest.mark.parametrize("steady", [False, True])
def test_scores_that_are_not_finite(count, steady):
    null = fit_null(normal(count), 0.01, steady=steady)
    odd = np.asarray([np.nan, np.inf, -np.inf], np.float32)
    assert flags(null, odd).tolist() == [True, True, False]
    p = p_values(null, odd)
    smallest = 0 if null.kind == "gaussian" else np.float32(1) / np.float32(count + 1)
    assert p.tolist() == [smallest, smallest, 1]


@pytest.mark.parametrize("count", [20, 500], ids=["gaussian", "conformal"])
@pytest.mark.parametrize("steady", [False, True])
def test_equal_scores_are_not_flagged_and_anything_above_is(count, steady):
    null = fit_null(np.full(count, 3, np.float32), 0.01, steady=steady)
    asked = np.asarray([2, 3, 3.01], np.float32)
    assert flags(null, asked).tolist() == [False, False, True]
    p = p_values(null, asked)
    assert np.isfinite(p).all() and p[2] <= 0.01 < p[1]


def test_scores_are_kept_sorted():
    assert np.array_equal(fit_null(normal(300), 0.01).scores, np.sort(normal(300)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_clean_score_that_is_not_finite_is_refused(bad):
    scores = normal(200)
    scores[7] = bad
    with pytest.raises(RewriteError, match="1 of 200 clean scores are not finite"):
        fit_null(scores, 0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_scores_are_refused(count):
    with pytest.raises(RewriteError, match=f"got {count}"):
        fit_null(normal(count), 0.01)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match="false_positive_rate"):
        fit_null(normal(200), rate)


def test_a_matrix_of_scores_is_refused():
    with pytest.raises(ValueError, match="shape"):
        fit_null(normal(200).reshape(100, 2), 0.01)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.07, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("count", [3, 20, 99, 100, 101, 200])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("steady", [False, True])
def test_leaving_one_out_is_fitting_to_the_others(count, rate, ties, steady):
    scores = normal(count, seed=count)
    if ties:
        scores = np.round(scores)
    flagged = [
        bool(flags(fit_null(np.delete(scores, index), rate, steady=steady), scores[index]))
        for index in range(count)
    ]
    assert leave_one_out_rate(scores, rate, steady=steady) == np.mean(flagged)


def test_leaving_one_out_of_many_scores_gives_the_rate_asked_for():
    rate = leave_one_out_rate(normal(100_000), 0.01)
    assert rate == pytest.approx(0.01, abs=1e-4)


def test_leaving_one_out_of_two_scores_is_refused():
    with pytest.raises(RewriteError, match="got 1"):
        leave_one_out_rate(normal(2), 0.5)


@pytest.mark.parametrize(("count", "rate"), [(500, 0.01), (750, 0.005)])
def test_a_steady_threshold_is_hardly_ever_missed_by_half(count, rate):
    rng = np.random.default_rng(0)
    above = {True: [], False: []}
    for _ in range(1000):
        scores = rng.exponential(size=count).astype(np.float32)
        for steady, found in above.items():
            found.append(np.exp(-fit_null(scores, rate, steady=steady).threshold))
    missed = {steady: np.mean(np.asarray(found) > 1.5 * rate) for steady, found in above.items()}
    assert missed[True] < 0.06 < 0.08 < missed[False]
    assert 0.6 * rate < np.mean(above[True]) < np.mean(above[False]) < 1.05 * rate


@pytest.mark.parametrize(("name", "often"), [("normal", 0.01), ("lognormal", 0.16)])
def test_a_steady_threshold_is_steadier_where_the_tail_is_not_exponential(name, often):
    rng = np.random.default_rng(0)
    draw = getattr(rng, name)
    asked = draw(size=200_000)
    missed = {}
    for steady in (False, True):
        thresholds = [
            fit_null(draw(size=500).astype(np.float32), 0.01, steady=steady).threshold
            for _ in range(300)
        ]
        missed[steady] = np.mean([(asked > threshold).mean() > 0.015 for threshold in thresholds])
    assert missed[True] < min(often, missed[False])


def test_a_steady_null_of_few_scores_by_hand():
    scores = np.asarray([0, 0, 0, 0, 0, 1, 2, 6], np.float32)
    null = fit_null(scores, 0.125, steady=True)
    # Two of eight are in the tail, which begins at 1; they lie 1 and 5 above that.
    assert null.tail == Tail(start=1.0, excess=3.0, share=0.25)
    assert null.threshold == pytest.approx(max(6, 1 + 3 * np.log(2)))
    asked = np.asarray([0.5, 1, 4, 7], np.float32)
    ranks = np.asarray([4, 4, 2, 1]) / 9
    tail = 0.25 * np.exp([0, 0, -1, -2])
    assert np.allclose(p_values(null, asked), np.maximum(ranks, tail), rtol=1e-6)
    assert p_values(null, asked[2:]) == pytest.approx([2 / 9, 1 / 9])
    far = fit_null(np.append(scores, np.float32(100)), 0.2, steady=True)
    assert far.tail == Tail(start=2.0, excess=51.0, share=2 / 9)
    assert far.threshold == pytest.approx(2 + 51 * np.log(2 / 9 / 0.2))
    assert p_values(far, np.asarray([far.threshold], np.float32)) == pytest.approx([0.2])


def test_at_rates_beyond_its_tail_a_steady_threshold_is_the_conformal_one():
    assert fit_null(normal(200), 0.3, steady=True).threshold == fit_null(normal(200), 0.3).threshold


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.2])
def test_steady_flags_are_those_with_a_p_value_of_at_most_the_rate(rate):
    null = fit_null(normal(500), rate, steady=True)
    asked = np.linspace(-8, 12, 3001, dtype=np.float32)
    assert np.array_equal(flags(null, asked), p_values(null, asked) <= rate)


def test_too_few_scores_for_ranks_have_no_tail():
    null = fit_null(normal(50), 0.01, steady=True)
    assert null.tail is None
    assert null.threshold == fit_null(normal(50), 0.01).threshold


@pytest.mark.parametrize("count", [20, 400])
def test_leave_one_out_counts_samples_that_can_be_flagged(count: int) -> None:
    scores = np.random.default_rng(0).normal(size=count).astype(np.float32)
    every = leave_one_out_rate(scores, 0.1)
    assert every > 0
    assert leave_one_out_rate(scores, 0.1, counted=np.ones(count, bool)) == every
    assert leave_one_out_rate(scores, 0.1, counted=np.zeros(count, bool)) == 0
    largest = scores == scores.max()
    assert leave_one_out_rate(scores, 0.1, counted=largest) == pytest.approx(1 / count)
    assert leave_one_out_rate(scores, 0.1, counted=~largest) == pytest.approx(every - 1 / count)
