"""When a class stands apart: Rosner's procedure, Student's t, the gamma null of MM-BD."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mmbm_onnx.scanning.judgement import (
    MARGIN_THRESHOLD,
    THRESHOLD,
    gamma_p_value,
    judge,
    standing_apart,
    student_tail,
)
from mmbm_onnx.scanning.look import Recovered

EVEN = np.array([10.0, 11, 12, 9, 10.5, 11.5, 9.5, 10.2, 12.5, 8.9])


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 60])
@pytest.mark.parametrize("t", [-2.0, 0.0, 0.3, 2.5, 9.0])
def test_the_tail_is_students(t: float, freedom: int) -> None:
    assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-12)


def test_one_small_class_stands_apart_by_the_p_value_of_a_t_test() -> None:
    sizes = EVEN.copy()
    sizes[4] = 4.0
    scores = standing_apart(sizes)
    others = np.log(np.delete(sizes, 4))
    t = (others.mean() - np.log(4)) / (others.std(ddof=1) * np.sqrt(1 + 1 / 9))
    assert scores[4] == pytest.approx(-np.log10(10 * stats.t.sf(t, 8)))
    assert scores[4] > THRESHOLD
    assert scores.argmax() == 4


def test_several_small_classes_do_not_hide_each_other() -> None:
    sizes = EVEN.copy()
    sizes[[2, 5, 7]] = 3.0, 3.3, 3.6
    scores = standing_apart(sizes)
    assert sorted(np.flatnonzero(scores >= THRESHOLD)) == [2, 5, 7]


def test_classes_alike_or_larger_do_not_stand_apart() -> None:
    assert (standing_apart(EVEN) < THRESHOLD).all()
    assert (standing_apart(np.full(10, 5.0)) == 0).all()
    large = EVEN.copy()
    large[3] = 100
    assert (standing_apart(large) < THRESHOLD).all()


def test_scores_do_not_depend_on_the_unit_or_the_order() -> None:
    sizes = EVEN.copy()
    sizes[4] = 4.0
    order = np.random.default_rng(0).permutation(10)
    assert np.allclose(standing_apart(1000 * sizes), standing_apart(sizes))
    assert np.allclose(standing_apart(sizes[order]), standing_apart(sizes)[order])


def test_classes_without_a_pattern_have_no_score_and_four_cannot_be_told() -> None:
    sizes = np.append(EVEN, np.nan)
    sizes[0] = 3.0
    scores = standing_apart(sizes)
    assert np.isnan(scores[-1]) and scores[0] > THRESHOLD
    assert np.isnan(standing_apart(np.array([1.0, 10, 10, 10]))).all()
    assert np.isfinite(standing_apart(np.array([1.0, 10, 10, 10, 11]))).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_margins_p_value_is_that_of_a_gamma_fitted_by_scipy(seed: int) -> None:
    margins = np.random.default_rng(seed).gamma(5, 3, 12)
    top = margins.argmax()
    shape, _, scale = stats.gamma.fit(np.delete(margins, top), floc=0)
    expected = 1 - stats.gamma.cdf(margins[top], shape, 0, scale) ** 12
    assert gamma_p_value(margins) == pytest.approx(expected, abs=1e-6)


def test_margins_that_tell_nothing_have_no_p_value() -> None:
    assert gamma_p_value(np.array([1.0, 2, 3, 50])) is None
    assert gamma_p_value(np.full(10, -1.0)) is None
    assert 0 <= gamma_p_value(np.full(10, 4.0)) <= 1


def _patterns(sizes: np.ndarray, norm: str = "l1") -> list[Recovered]:
    pattern = np.zeros((1, 2, 2), np.float32)
    return [
        Recovered(norm, target, size, pattern, np.arange(3), 9) for target, size in enumerate(sizes)
    ]


def test_margins_decide_only_where_there_are_no_patterns() -> None:
    margins = np.append(np.linspace(9, 12, 9), 16.0)
    alone = judge([], margins)
    assert [(found.target, found.test) for found in alone.findings] == [(9, "margin")]
    assert alone.findings[0].score > MARGIN_THRESHOLD
    assert alone.findings[0].score == pytest.approx(-np.log10(alone.margin_p_value))
    assert np.isnan(alone.scores).all()
    beside = judge(_patterns(EVEN), margins)
    assert beside.findings == ()
    assert {test.name: test.decides for test in beside.tests} == {"l1": True, "margin": False}


def test_a_class_is_suspected_by_its_loudest_deciding_norm() -> None:
    faint, loud = EVEN.copy(), EVEN.copy()
    faint[4], loud[4] = 6.0, 4.0
    waves = EVEN.copy()
    waves[7] = 1.0
    patterns = [*_patterns(faint, "l2"), *_patterns(loud, "l1"), *_patterns(waves, "waves")]
    judgement = judge(patterns, np.linspace(9, 12, 10))
    assert [(found.target, found.test) for found in judgement.findings] == [(4, "l1")]
    assert judgement.findings[0].score == standing_apart(loud)[4] == judgement.scores[4]
    assert standing_apart(waves)[7] > THRESHOLD > judgement.scores[7]


def test_patterns_that_do_nothing_to_other_samples_are_not_judged() -> None:
    sizes = EVEN.copy()
    sizes[4] = 1.0
    told = judge(_patterns(sizes), np.linspace(9, 12, 10))
    assert [found.target for found in told.findings] == [4]
    idle = [replace(one, flipped=np.arange(0)) for one in _patterns(sizes)]
    nothing = judge(idle, np.linspace(9, 12, 10))
    assert nothing.findings == () and np.isnan(nothing.scores).all()
    one_idle = [
        replace(one, flipped=np.arange(0)) if one.target == 4 else one for one in _patterns(sizes)
    ]
    assert judge(one_idle, np.linspace(9, 12, 10)).findings == ()


def test_the_most_suspicious_class_comes_first() -> None:
    sizes = EVEN.copy()
    sizes[[2, 6]] = 3.0, 1.5
    judgement = judge(_patterns(sizes), np.linspace(9, 12, 10))
    assert [found.target for found in judgement.findings] == [6, 2]
