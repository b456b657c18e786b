from __future__ import annotations

import numpy as np
import pytest
from data_helpers import interface

from mmbm_onnx.data.layout import ImageInput, as_channels_last, image_input
from mmbm_onnx.errors import DataError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 6), ImageInput("nchw", 3, 8, 6)),
        ((1, None, None), ImageInput("nchw", 1, None, None)),
        ((8, 6, 3), ImageInput("nhwc", 3, 8, 6)),
        ((28, 28), ImageInput("nhw", 1, 28, 28)),
    ],
)
def test_layout_is_told_from_the_shape(shape, expected):
    assert image_input(interface(*shape)) == expected


def test_two_possible_layouts_need_the_option():
    with pytest.raises(DataError, match="could be NCHW or NHWC; give the layout"):
        image_input(interface(3, 8, 3))
    assert image_input(interface(3, 8, 3), "nchw") == ImageInput("nchw", 3, 8, 3)
    assert image_input(interface(3, 8, 3), "nhwc") == ImageInput("nhwc", 3, 3, 8)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((784,), "auto", r"\(\?, 784\) takes no images"),
        ((5, 8, 8), "auto", "no axis of 1 or 3 channels"),
        ((None, None, None), "auto", "no axis of 1 or 3 channels"),
        ((3, 8, 8), "nhwc", "not NHWC with 1 or 3 channels"),
        ((28, 28), "nchw", "has no channel axis"),
    ],
)
def test_inputs_that_are_no_images_are_refused(shape, layout, message):
    with pytest.raises(DataError, match=message):
        image_input(interface(*shape), layout)


def test_uint8_arrays_of_every_layout():
    nhwc = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    target = ImageInput("nchw", 3, 4, 5)
    np.testing.assert_array_equal(as_channels_last(nhwc, target, "x"), nhwc)
    np.testing.assert_array_equal(as_channels_last(nhwc.transpose(0, 3, 1, 2), target, "x"), nhwc)
    np.testing.assert_array_equal(as_channels_last(nhwc[..., 0], target, "x"), nhwc[..., :1])


def test_uint8_array_of_two_possible_layouts_is_decided_by_the_models_size():
    x = np.zeros((2, 3, 5, 3), np.uint8)
    assert as_channels_last(x, ImageInput("nchw", 3, 3, 5), "x").shape == (2, 3, 5, 3)
    assert as_channels_last(x, ImageInput("nchw", 3, 5, 3), "x").shape == (2, 5, 3, 3)
    with pytest.raises(DataError, match="could be NHWC or NCHW"):
        as_channels_last(x, ImageInput("nchw", 3, None, None), "x")


@pytest.mark.parametrize("shape", [(4,), (2, 5, 8, 8), (2, 3, 4, 5, 6)])
def test_uint8_arrays_that_hold_no_images_are_refused(shape):
    with pytest.raises(DataError, match="holds no images"):
        as_channels_last(np.zeros(shape, np.uint8), ImageInput("nchw", 3, 8, 8), "x")
