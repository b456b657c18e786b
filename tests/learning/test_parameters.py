from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmbm_onnx.learning.parameters import BoundParameters
from mmbm_onnx.learning.settings import settings_for
from mmbm_onnx.learning.statistics import ActivationStatistics
from mmbm_onnx.types import Site

STATISTICS = ActivationStatistics(
    mean=torch.tensor([1.0, 2.0, 0.0]),
    std=torch.tensor([0.5, 1.0, 0.0]),
    maximum=torch.tensor([4.0, 5.0, 0.0]),
)


def site(upper: float | None = None) -> Site:
    return Site("a", "Relu", np.dtype(np.float32), 4, 1, 3, upper)


def start(method: str, upper: float | None = None, **changes: object) -> np.ndarray:
    settings = replace(settings_for(method), **changes)
    parameters = BoundParameters([site(upper)], {"a": STATISTICS}, settings)
    return parameters.result()["a"]


def test_low_start_is_mean_plus_one_deviation_and_near_zero_for_a_silent_channel() -> None:
    np.testing.assert_allclose(start("mmac"), [1.5, 3.0, 0.003], rtol=1e-6)


def test_maximum_start_is_the_clean_maximum() -> None:
    np.testing.assert_allclose(start("mmbm"), [4.0, 5.0, 0.005], rtol=1e-6)


def test_reference_start_is_one_everywhere() -> None:
    assert start("mmac-reference").tolist() == [1.0, 1.0, 1.0]


def test_start_stays_below_the_activations_own_limit() -> None:
    np.testing.assert_allclose(start("mmac", upper=2.0), [1.5, 2.0, 0.003], rtol=1e-6)


@pytest.mark.parametrize("method", ["mmac", "mmac-reference"])
def test_bounds_stay_positive_whatever_a_step_does(method: str) -> None:
    parameters = BoundParameters([site()], {"a": STATISTICS}, settings_for(method))
    with torch.no_grad():
        for value in parameters.trained:
            value -= 1e6
    parameters.project()
    found = parameters.result()["a"]
    assert (found > 0).all() and np.isfinite(found).all()


def test_bounds_follow_the_logarithm_they_are_trained_in() -> None:
    parameters = BoundParameters([site()], {"a": STATISTICS}, settings_for("mmac"))
    with torch.no_grad():
        parameters.trained[0] += torch.log(torch.tensor(2.0))
    np.testing.assert_allclose(parameters.result()["a"], [3.0, 6.0, 0.006], rtol=1e-6)


def test_a_silent_site_starts_at_a_positive_bound() -> None:
    silent = ActivationStatistics(torch.zeros(3), torch.zeros(3), torch.zeros(3))
    found = BoundParameters([site()], {"a": silent}, settings_for("mmac")).result()["a"]
    assert (found > 0).all()


@pytest.mark.parametrize("method", ["mmac", "mmac-reference"])  # logarithmic, linear
def test_loosening_ends_at_clean_maxima_and_leaves_what_is_above(method: str) -> None:
    settings = replace(settings_for(method), start="low", start_value=1.0)
    parameters = BoundParameters([site()], {"a": STATISTICS}, settings)
    before = parameters.snapshot()
    for share, expected in (
        (0.0, [1.5, 3.0, 0.003]),
        (0.5, [np.sqrt(1.5 * 4), np.sqrt(3.0 * 5), 0.003]),
        (0.25, [1.5**0.75 * 4**0.25, 3.0**0.75 * 5**0.25, 0.003]),  # of the earlier point
        (1.0, [4.0, 5.0, 0.003]),
    ):
        parameters.loosen(before, share)
        np.testing.assert_allclose(parameters.result()["a"], expected, rtol=1e-5)
