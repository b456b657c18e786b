"""When a class stands apart: costs, leads, and the gamma null of MM-BD."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmbm_onnx.scanning.judgement import (
    MARGIN_THRESHOLD,
    THRESHOLD,
    gamma_p_value,
    general_costs,
    judge,
    leads_of,
)
from mmbm_onnx.scanning.look import Recovered

EVEN = np.array([2.0, 2.2, 2.4, 1.8, 2.1, 2.3, 1.9, 2.05, 2.5, 1.7])


def test_a_lead_is_in_standard_deviations_by_the_median_absolute_deviation() -> None:
    costs = EVEN.copy()
    costs[4] = 0.5
    logs = np.log(costs)
    spread = stats.median_abs_deviation(logs, scale="normal")
    assert np.allclose(leads_of(costs), (np.median(logs) - logs) / spread)
    assert leads_of(costs)[4] > 5


def test_several_small_classes_do_not_hide_each_other() -> None:
    costs = EVEN.copy()
    costs[[2, 5, 7]] = 0.5, 0.55, 0.6
    assert sorted(np.flatnonzero(leads_of(costs) > 5)) == [2, 5, 7]


def test_large_classes_have_negative_leads_and_hide_nobody() -> None:
    costs = EVEN.copy()
    costs[[3, 4]] = 50, 0.5
    leads = leads_of(costs)
    assert leads[3] < -5 and leads[4] > 5


def test_where_classes_are_alike_chance_is_no_lead() -> None:
    costs = np.full(10, 2.0)
    costs[3] = 1.98
    assert (np.abs(leads_of(costs)) <= 0.11).all()


def test_leads_do_not_depend_on_the_unit_or_the_order() -> None:
    order = np.random.default_rng(0).permutation(10)
    assert np.allclose(leads_of(1000 * EVEN), leads_of(EVEN))
    assert np.allclose(leads_of(EVEN[order]), leads_of(EVEN)[order])


def test_classes_without_a_pattern_have_no_lead_and_four_cannot_be_told() -> None:
    costs = np.append(EVEN, np.nan)
    assert np.isnan(leads_of(costs)[-1])
    assert np.allclose(leads_of(costs)[:-1], leads_of(EVEN))
    assert np.isnan(leads_of(np.array([1.0, 2, 2, 2]))).all()
    assert np.isfinite(leads_of(np.array([1.0, 2, 2, 2, 3]))).all()


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


def _patterns(costs: np.ndarray, norm: str = "l1") -> list[Recovered]:
    pattern = np.zeros((1, 2, 2), np.float32)
    return [
        Recovered(norm, target, 0.03 * cost, 0.03, pattern, np.arange(3), 9)
        for target, cost in enumerate(costs)
    ]


def test_costs_are_sizes_over_those_of_single_samples() -> None:
    found = general_costs(_patterns(EVEN)[:-1], "l1", 10)
    assert np.allclose(found[:-1], EVEN[:-1]) and np.isnan(found[-1])
    assert np.isnan(general_costs(_patterns(EVEN), "l2", 10)).all()


def test_margins_decide_only_where_there_are_no_patterns() -> None:
    margins = np.append(np.linspace(9, 12, 9), 16.0)
    alone = judge([], margins)
    assert [(found.target, found.test, found.norm) for found in alone.findings] == [
        (9, "margin", None)
    ]
    assert alone.findings[0].score > MARGIN_THRESHOLD
    assert alone.findings[0].score == pytest.approx(-np.log10(alone.margin_p_value))
    beside = judge(_patterns(EVEN), margins)
    assert beside.findings == ()
    assert {test.name: test.decides for test in beside.tests} == {"patterns": True, "margin": False}


def test_leads_of_all_norms_add_up_and_the_loudest_is_told() -> None:
    faint, loud = EVEN.copy(), EVEN.copy()
    faint[4], loud[4] = 1.5, 0.6
    patterns = [*_patterns(faint, "l2"), *_patterns(loud, "l1"), *_patterns(EVEN, "waves")]
    judgement = judge(patterns, np.linspace(9, 12, 10))
    expected = sum(leads_of(costs) for costs in (faint, loud, EVEN))
    assert np.allclose(judgement.tests[0].scores, expected)
    (finding,) = judgement.findings
    assert (finding.target, finding.test, finding.norm) == (4, "patterns", "l1")
    assert finding.score == pytest.approx(expected[4]) and finding.score > THRESHOLD


def test_the_most_suspicious_class_comes_first() -> None:
    costs = EVEN.copy()
    costs[[2, 6]] = 0.7, 0.3
    patterns = [*_patterns(costs, "l2"), *_patterns(costs, "l1")]
    judgement = judge(patterns, np.linspace(9, 12, 10))
    assert [found.target for found in judgement.findings] == [6, 2]
