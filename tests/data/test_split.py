from __future__ import annotations

import numpy as np
import pytest

from mmbm_onnx.data import split
from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.types import Samples


def samples(y) -> Samples:
    y = None if y is None else np.asarray(y, np.int64)
    n = 40 if y is None else len(y)
    return Samples(np.arange(n, dtype=np.float32)[:, None], y, source="set")


def indices(part: Samples) -> list[int]:
    return part.x[:, 0].astype(int).tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.6, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_parts_are_a_stratified_partition(fraction, seed):
    generator = np.random.default_rng(100 + seed)
    y = generator.integers(0, 7, generator.integers(20, 200))
    fit, calibration = split(samples(y), fraction, seed)
    assert sorted(indices(fit) + indices(calibration)) == list(range(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True), strict=True):
        in_fit = int((fit.y == label).sum())
        if count >= 2:
            assert 1 <= in_fit <= count - 1
            assert abs(in_fit - np.clip(count * fraction, 1, count - 1)) < 1
        else:
            assert in_fit == 1
    np.testing.assert_array_equal(y[indices(fit)], fit.y)
    np.testing.assert_array_equal(y[indices(calibration)], calibration.y)


def test_total_is_the_fraction_where_no_class_is_at_its_limit():
    y = np.repeat(np.arange(10), 7)
    fit, calibration = split(samples(y), 0.5, 3)
    assert len(fit) == len(calibration) == 35


def test_order_within_a_part_is_kept():
    fit, calibration = split(samples(np.arange(50) % 3), 0.5, 1)
    assert indices(fit) == sorted(indices(fit))
    assert indices(calibration) == sorted(indices(calibration))


def test_same_seed_same_parts_other_seed_other_parts():
    y = np.arange(60) % 4
    assert indices(split(samples(y), 0.5, 7)[0]) == indices(split(samples(y), 0.5, 7)[0])
    assert indices(split(samples(y), 0.5, 7)[0]) != indices(split(samples(y), 0.5, 8)[0])


def test_given_labels_stratify_where_there_are_none():
    labels = np.arange(40) % 4
    fit, _ = split(samples(None), 0.5, 0, labels=labels)
    assert np.bincount(labels[indices(fit)]).tolist() == [5, 5, 5, 5]
    assert fit.y is None


def test_without_labels_all_are_one_class():
    fit, calibration = split(samples(None), 0.25, 0)
    assert (len(fit), len(calibration)) == (10, 30)


def test_a_class_of_one_goes_to_the_fit_part():
    fit, calibration = split(samples([0, 0, 0, 0, 1]), 0.2, 0)
    assert 1 in fit.y
    assert 1 not in calibration.y


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(OptionError, match="fraction is"):
        split(samples(None), fraction)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(OptionError, match="seed is -1"):
        split(samples(None), seed=-1)
    with pytest.raises(DataError, match="set: 3 samples with no class twice"):
        split(samples([0, 1, 2]))
    with pytest.raises(DataError, match="0 samples"):
        split(samples([]))
    with pytest.raises(DataError, match=r"\(3,\) labels to split 40 samples"):
        split(samples(None), labels=np.zeros(3, np.int64))
