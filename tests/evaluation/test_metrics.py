"""Figures of merit, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmbm_onnx.errors import DataError
from mmbm_onnx.evaluation import metrics


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def test_accuracy_is_the_share_that_is_right() -> None:
    assert metrics.accuracy(ints(0, 1, 2, 2), ints(0, 1, 2, 0)) == 0.75


def test_samples_of_the_target_class_do_not_count_as_attacked() -> None:
    labels = ints(0, 0, 1, 2, 3)
    answers = ints(0, 0, 0, 0, 3)
    assert metrics.attack_success_rate(answers, labels, 0) == pytest.approx(2 / 3)
    assert metrics.robust_accuracy(answers, labels, 0) == pytest.approx(1 / 3)


def test_every_sample_may_have_its_own_target() -> None:
    labels, target = ints(0, 1, 2), ints(1, 2, 2)
    assert metrics.attack_success_rate(ints(1, 0, 2), labels, target) == 0.5
    assert metrics.robust_accuracy(ints(1, 1, 2), labels, target) == 0.5


def test_attack_on_the_target_class_alone_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="target class already"):
        metrics.attack_success_rate(ints(1, 1), ints(1, 1), 1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.9, 1.0), (0.9, 0.0), 1.0),  # attack gone for nothing
        ((0.9, 1.0), (0.9, 1.0), 0.5),  # nothing done
        ((0.9, 1.0), (0.7, 0.4), 0.7),  # (0.6 - 0.2 + 1) / 2
        ((0.9, 0.5), (0.95, 0.9), 0.5),  # gains do not count beyond the original
    ],
)
def test_defense_effectiveness(
    before: tuple[float, float], after: tuple[float, float], expected: float
) -> None:
    rating = metrics.defense_effectiveness(before[0], after[0], before[1], after[1])
    assert rating == pytest.approx(expected)


def test_defense_effectiveness_takes_fractions_not_percent() -> None:
    with pytest.raises(ValueError, match=r"98\.0 is not a fraction"):
        metrics.defense_effectiveness(98.0, 0.9, 0.9, 0.1)


def test_flag_rates() -> None:
    flags = np.asarray([True, False, False, False])
    assert metrics.false_positive_rate(flags) == 0.25
    assert metrics.true_positive_rate(~flags) == 0.75


def test_roc_auc_counts_ties_half() -> None:
    # Pairs: 2>1, 2=2, 3>1, 3>2.
    assert metrics.roc_auc(np.asarray([2.0, 3.0]), np.asarray([1.0, 2.0])) == 3.5 / 4
    assert metrics.roc_auc(np.asarray([1.0]), np.asarray([1.0])) == 0.5


def test_roc_auc_equals_the_count_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    attacked, clean = rng.integers(0, 9, 57), rng.integers(2, 12, 83)
    pairs = attacked[:, None] - clean[None, :]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert metrics.roc_auc(attacked, clean) == pytest.approx(expected)
    assert metrics.roc_auc(np.asarray([np.inf]), np.asarray([1.0, -np.inf])) == 1.0


def test_empty_sets_have_no_figures() -> None:
    none = ints()
    flags = np.zeros(0, np.bool_)
    for measure in (
        lambda: metrics.accuracy(none, none),
        lambda: metrics.agreement(none, none),
        lambda: metrics.attack_success_rate(none, none, 0),
        lambda: metrics.robust_accuracy(none, none, 0),
        lambda: metrics.false_positive_rate(flags),
        lambda: metrics.true_positive_rate(flags),
        lambda: metrics.roc_auc(np.zeros(0), np.ones(1)),
        lambda: metrics.roc_auc(np.ones(1), np.zeros(0)),
    ):
        with pytest.raises(DataError, match=r"no samples|empty"):
            measure()


def test_shapes_that_differ_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="differ"):
        metrics.accuracy(ints(0, 1), ints(0))
    with pytest.raises(DataError, match="differ"):
        metrics.attack_success_rate(ints(0, 1), ints(0, 1), ints(0, 1, 1))
    with pytest.raises(DataError, match="booleans"):
        metrics.false_positive_rate(np.asarray([0.5]))
    with pytest.raises(DataError, match="not a number"):
        metrics.roc_auc(np.asarray([np.nan]), np.ones(1))
