from __future__ import annotations

import json

import numpy as np
import pytest
from data_helpers import pattern
from PIL import Image

from mmbm_onnx.data import Preprocessing
from mmbm_onnx.data.assemble import assemble_images
from mmbm_onnx.data.layout import ImageInput
from mmbm_onnx.errors import DataError

F32 = np.dtype(np.float32)
RGB = pattern(5, 4)
NCHW = ImageInput("nchw", 3, 5, 4)


def apply(preprocessing, target=NCHW, pixels=RGB, dtype=F32):
    images = [("a", Image.fromarray(pixels))]
    return assemble_images(images, 1, target, np.dtype(dtype), preprocessing, 1 << 20)[0]


def test_default_divides_by_255():
    np.testing.assert_array_equal(apply(Preprocessing()), np.float32(RGB.transpose(2, 0, 1) / 255))


def test_mean_and_std_come_after_the_scale_by_channel():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = ((RGB / 255 - mean) / std).transpose(2, 0, 1)
    got = apply(Preprocessing(mean=mean, std=std))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


def test_one_value_serves_all_channels():
    got = apply(Preprocessing(scale=1.0, mean=(127.5,), std=(127.5,)))
    np.testing.assert_allclose(got, (RGB.transpose(2, 0, 1) - 127.5) / 127.5, rtol=1e-6)


def test_bgr_reverses_colours_and_means_are_in_the_models_order():
    got = apply(Preprocessing(scale=1.0, mean=(1, 2, 3), channel_order="bgr"))
    wanted = RGB[..., ::-1].astype(np.float32) - [1, 2, 3]
    np.testing.assert_array_equal(got, wanted.transpose(2, 0, 1))


def test_layouts():
    nhwc = apply(Preprocessing(scale=1.0), ImageInput("nhwc", 3, 5, 4))
    np.testing.assert_array_equal(nhwc, RGB)
    grey = apply(Preprocessing(scale=1.0), ImageInput("nhw", 1, 5, 4), RGB[..., 0])
    np.testing.assert_array_equal(grey, RGB[..., 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_a_model_of_integers_gets_pixels_as_they_are(dtype):
    got = apply(Preprocessing(), dtype=dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, RGB.transpose(2, 0, 1))
    centred = apply(Preprocessing(mean=(128,)), dtype=np.int8)
    np.testing.assert_array_equal(centred, RGB.transpose(2, 0, 1).astype(int) - 128)


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [
        ({"scale": 1 / 255}, np.uint8),
        ({"std": (2,)}, np.uint8),
        ({"mean": (1,)}, np.uint8),
        ({}, np.int8),
    ],
)
def test_a_model_of_integers_takes_whole_numbers_in_its_range(asked, dtype):
    with pytest.raises(DataError, match=r"whole numbers from .*\(u?int8\); choose scale"):
        apply(Preprocessing(**asked), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_values_are_rounded_once_to_the_models_dtype(dtype):
    got = apply(Preprocessing(), dtype=dtype)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, (RGB * (1 / 255)).astype(dtype).transpose(2, 0, 1))


def test_overflow_of_half_precision_is_refused():
    with pytest.raises(DataError, match="overflow the model's float16 input"):
        apply(Preprocessing(scale=1000.0), dtype=np.float16)


def test_another_size_is_resized_exactly_with_antialias():
    target = ImageInput("nchw", 3, 10, 7)
    got = apply(Preprocessing(scale=1.0), target)
    wanted = Image.fromarray(RGB).resize((7, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got, np.asarray(wanted).transpose(2, 0, 1))
    stripes = np.tile(np.array([[0, 255]], np.uint8), (8, 4))
    small = apply(Preprocessing(scale=1.0), ImageInput("nhw", 1, 2, 2), stripes)
    np.testing.assert_allclose(small, 127.5, atol=20)


def test_nearest_takes_pixels_as_they_are():
    small = apply(Preprocessing(scale=1.0, resample="nearest"), ImageInput("nchw", 3, 10, 8))
    np.testing.assert_array_equal(small, RGB.repeat(2, 0).repeat(2, 1).transpose(2, 0, 1))


def test_shortest_side_then_centre_crop():
    pixels = pattern(4, 4).repeat(2, axis=1)  # 4 high, 8 wide
    preprocessing = Preprocessing(scale=1.0, resize=8, crop=(6, 6))
    got = apply(preprocessing, ImageInput("nchw", 3, 6, 6), pixels)
    resized = np.asarray(Image.fromarray(pixels).resize((16, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(got, resized[1:7, 5:11].transpose(2, 0, 1))


def test_exact_resize_is_height_then_width():
    got = apply(Preprocessing(resize=(3, 9)), ImageInput("nchw", 3, None, None))
    assert got.shape == (3, 3, 9)


def test_crop_alone():
    got = apply(Preprocessing(scale=1.0, crop=(3, 2)), ImageInput("nchw", 3, 3, 2))
    np.testing.assert_array_equal(got, RGB[1:4, 1:3].transpose(2, 0, 1))


def test_sizes_that_do_not_lead_to_the_models_are_refused():
    with pytest.raises(DataError, match="a: height is 8 after preprocessing, the model takes 5"):
        apply(Preprocessing(resize=(8, 8)))
    with pytest.raises(DataError, match="a: 4x5 is smaller than the crop 9x9"):
        apply(Preprocessing(crop=(9, 9)))


def test_resizing_a_sliver_is_no_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(DataError, match="exceeds 10000 pixels"):
        apply(Preprocessing(resize=50, crop=(5, 4)), pixels=np.zeros((1, 500), np.uint8))


def test_dynamic_sizes_must_agree():
    free = ImageInput("nchw", 1, None, None)
    images = [("first", Image.new("L", (4, 5))), ("second", Image.new("L", (5, 4)))]
    with pytest.raises(DataError, match="second: 5x4 pixels, but first has 4x5"):
        assemble_images(images, 2, free, F32, Preprocessing(), 1 << 20)
    x = assemble_images(images, 2, free, F32, Preprocessing(resize=(6, 7)), 1 << 20)
    assert x.shape == (2, 1, 6, 7)


def test_memory_limit_comes_before_the_allocation():
    images = [("a", Image.new("L", (10, 10)))]
    with pytest.raises(DataError, match="need 400000000000 bytes, over the limit of 1000"):
        assemble_images(images, 10**9, ImageInput("nhw", 1, 10, 10), F32, Preprocessing(), 1000)
    with pytest.raises(DataError, match="no images"):
        assemble_images([], 0, ImageInput("nhw", 1, 10, 10), F32, Preprocessing(), 1000)


def test_means_must_fit_the_channels():
    with pytest.raises(DataError, match=r"mean has 3 values, the model takes 1 channel; .*--mean"):
        apply(Preprocessing(mean=(0, 0, 0)), ImageInput("nhw", 1, 5, 4), RGB[..., 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0}, "scale is 0"),
        ({"scale": float("nan")}, "finite number"),
        ({"scale": "1"}, "scale holds '1'"),
        ({"mean": (1, 2)}, "expected 1 or 3 numbers"),
        ({"mean": 0.5}, "expected 1 or 3 numbers"),
        ({"mean": ("a",)}, "mean holds 'a'"),
        ({"std": (0.0,)}, "expected positive numbers"),
        ({"std": (1, 1, -1)}, "expected positive numbers"),
        ({"resize": 0}, "resize is"),
        ({"resize": True}, "resize is"),
        ({"resize": (1, 2, 3)}, "resize is"),
        ({"crop": 5}, "crop is 5"),
        ({"crop": (5, 2.5)}, "crop is"),
        ({"resample": "cubic"}, "resample is 'cubic', expected one of nearest"),
        ({"channel_order": "gbr"}, "channel_order is 'gbr'"),
        ({"layout": "chw"}, "layout is 'chw'"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(DataError, match=message):
        Preprocessing(**fields)


def test_describe_is_json():
    asked = Preprocessing(mean=[0.5], std=[0.5], resize=[8, 9], crop=[5, 4])
    described = asked.describe(np.dtype("float32"))
    assert asked.describe(np.dtype("uint8"))["scale"] == 1.0
    assert json.loads(json.dumps(described)) == {
        "scale": 1 / 255,
        "mean": [0.5],
        "std": [0.5],
        "resize": [8, 9],
        "crop": [5, 4],
        "resample": "bilinear",
        "channel_order": "rgb",
        "layout": "auto",
        "notes": [],
    }
