from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from rewriting_helpers import site

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.bounds import check_bound, round_down

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounded_bound_is_the_largest_that_does_not_exceed_the_learned_one(dtype):
    learned = np.exp(np.random.default_rng(0).uniform(-8, 10, 2000)).astype(np.float32)
    rounded = round_down(learned, np.dtype(dtype))
    assert rounded.dtype == dtype and rounded.shape == learned.shape
    assert (rounded.astype(np.float64) <= learned).all()
    following = np.nextafter(rounded, np.full_like(rounded, np.inf))
    assert (following.astype(np.float64) > learned).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_types_keep_the_bound_exactly(dtype):
    learned = np.asarray([0.1, 3.3e38, 1.2e-38], np.float32)
    assert np.array_equal(round_down(learned, np.dtype(dtype)), learned.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounded_bound_stays_positive_and_finite(dtype):
    rounded = round_down(np.asarray([1e-45, 1e-30, 1e5, 3.4e38], np.float32), np.dtype(dtype))
    assert (rounded > 0).all() and np.isfinite(rounded).all()


def test_a_scalar_bound_stays_rank_zero():
    assert round_down(np.asarray(0.1, np.float32), np.dtype(np.float16)).shape == ()


SCALAR = np.asarray(1, np.float32)
CHANNELS = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("opset", "where", "bound", "message"),
    [
        (5, site("t", 3), SCALAR, "opset 5 is below 6"),
        (7, site("t", 3), CHANNELS, "per channel.*opset 7; bound whole tensors instead"),
        (7, site("t", 3, dtype=np.float64), SCALAR, "in float64.*opset 7; convert"),
        (17, site("t", 4), CHANNELS, "3 bounds for 't', which has 4 channels"),
        (17, site("t", None, axis=None), CHANNELS, "'t' per channel: its channel axis is unknown"),
        (17, site("t", None, rank=None), CHANNELS, "'t' per channel: its channel axis is unknown"),
    ],
)
def test_a_bound_that_does_not_fit_is_refused(opset, where, bound, message):
    with pytest.raises(RewriteError, match=message):
        check_bound(opset, where, bound)


@pytest.mark.parametrize(
    ("opset", "where", "bound"),
    [
        (6, site("t", 3), SCALAR),
        (8, site("t", 3), CHANNELS),
        (8, site("t", 3, dtype=np.float64), SCALAR),
        (17, site("t", None), CHANNELS),
        (17, site("t", None, rank=None, axis=None), SCALAR),
    ],
)
def test_a_bound_that_fits_is_taken(opset, where, bound):
    check_bound(opset, where, bound)
