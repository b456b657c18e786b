"""Resize, Upsample and the grid samplers against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from operator_checks import (
    assert_agrees,
    assert_differentiable,
    assert_maps,
    by_executor,
    by_runtime,
    noise,
    one_node,
)

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.executor import GraphExecutor

NO_ROI = np.zeros(0, np.float32)
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
SIZES = [(1, 1), (2, 9), (3, 4), (4, 12), (5, 7), (7, 6), (8, 5), (10, 3)]


def scales_of(*scales: float) -> np.ndarray:
    return np.array([1, 1, *scales], np.float32)


def resize(
    x: np.ndarray,
    *,
    opset: int = 13,
    scales: tuple[float, ...] | None = None,
    sizes: tuple[int, ...] | None = None,
    **attributes: Any,
) -> Any:
    """A Resize of the spatial axes of ``x``, by scales or to sizes."""
    if sizes is None:
        assert scales is not None
        return one_node("Resize", x, NO_ROI, scales_of(*scales), opset=opset, **attributes)
    target = np.array([*x.shape[:2], *sizes], np.int64)
    middle = NO_ROI if opset < 13 else None
    return one_node("Resize", x, NO_ROI, middle, target, opset=opset, **attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_upsample(mode: str, scale: float) -> None:
    x = noise(2, 3, 5, 4)
    scales = [1.0, 1.0, scale, scale + 0.5]
    assert_agrees(one_node("Upsample", x, opset=7, mode=mode, scales=scales), x)
    model = one_node("Upsample", x, np.array(scales, np.float32), opset=9, mode=mode)
    assert_agrees(model, x)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.5, 0.6), (1.5, 0.7), (0.3, 2.5)], ids=str)
def test_resize_of_opset_10(mode: str, scales: tuple[float, float]) -> None:
    x = noise(2, 3, 10, 10)
    assert_agrees(one_node("Resize", x, scales_of(*scales), opset=10, mode=mode), x)


@pytest.mark.parametrize("coordinates", [*COORDINATES, "half_pixel_symmetric"])
@pytest.mark.parametrize("nearest", NEAREST)
def test_nearest_to_every_size(coordinates: str, nearest: str) -> None:
    opset = 19 if coordinates == "half_pixel_symmetric" else 13
    for size in (1, 2, 3, 5, 7, 11, 14, 20, 21, 23):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size) + 1
        for target in (1, 2, 3, 4, 6, 8, 13, 14, 19, 26):
            model = resize(
                x,
                opset=opset,
                sizes=(1, target),
                mode="nearest",
                coordinate_transformation_mode=coordinates,
                nearest_mode=nearest,
            )
            (expected,), (actual,) = by_runtime(model, x), by_executor(model, x)
            assert actual.ravel().tolist() == expected.ravel().tolist(), (size, target)


@pytest.mark.parametrize("scale", [2.0, 0.5, 1.5, 0.6, 0.7, 2.5, 1 / 3, 4 / 3])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("nearest", NEAREST)
def test_nearest_by_scale(scale: float, coordinates: str, nearest: str) -> None:
    x = noise(1, 2, 10, 9)
    model = resize(
        x,
        opset=11,
        scales=(scale, scale),
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
    )
    assert_agrees(model, x)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("opset", [11, 13, 19])
def test_interpolation_to_sizes(mode: str, coordinates: str, opset: int) -> None:
    for sizes in SIZES:
        x = noise(1, 2, 5, 7)
        model = resize(
            x,
            opset=opset,
            sizes=sizes,
            mode=mode,
            coordinate_transformation_mode=coordinates,
        )
        assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
@pytest.mark.parametrize("scale", [2.0, 0.5, 1.5, 0.6, 0.7, 2.5, 1 / 3])
def test_interpolation_by_scale(mode: str, coordinates: str, scale: float) -> None:
    x = noise(1, 2, 10, 9)
    model = resize(x, scales=(scale, scale), mode=mode, coordinate_transformation_mode=coordinates)
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("coefficient", [-0.5, -0.75])
@pytest.mark.parametrize("exclude", [0, 1])
def test_cubic_options(coefficient: float, exclude: int) -> None:
    x = noise(1, 2, 6, 5)
    for sizes in ((9, 8), (3, 4)):
        model = resize(
            x, sizes=sizes, mode="cubic", cubic_coeff_a=coefficient, exclude_outside=exclude
        )
        assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [(3, 4), (4, 9), (8, 3)], ids=str)
def test_antialias(mode: str, sizes: tuple[int, int]) -> None:
    x = noise(1, 2, 8, 9)
    model = resize(x, opset=18, sizes=sizes, mode=mode, antialias=1, exclude_outside=1)
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(mode: str) -> None:
    x = noise(1, 2, 6, 5)
    roi = np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], np.float32)
    target = np.array([1, 2, 7, 8], np.int64)
    model = one_node(
        "Resize",
        x,
        roi,
        None,
        target,
        opset=13,
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.5,
    )
    assert_agrees(model, x, tolerance=1e-4)
    assert (by_executor(model, x)[0] == 7.5).any()


@pytest.mark.parametrize(
    ("policy", "axes"),
    [
        *product(["stretch", "not_larger", "not_smaller"], [[2, 3], [3, 2]]),
        ("stretch", [-1, -2]),
    ],
    ids=str,
)
def test_axes_and_aspect_ratio(policy: str, axes: list[int]) -> None:
    x = noise(1, 2, 4, 6)
    # Both common scales, 1.5 and 2.5, give whole sizes: runtimes disagree on what a rounded one is.
    wanted = {2: 10, 3: 9}
    target = np.array([wanted[axis % 4] for axis in axes], np.int64)
    model = one_node(
        "Resize",
        x,
        None,
        None,
        target,
        opset=18,
        axes=axes,
        keep_aspect_ratio_policy=policy,
        mode="linear",
    )
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 2, 3, 4, 5)], ids=str)
def test_other_ranks(shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    for mode in ("nearest", "linear"):
        model = resize(x, scales=(2.0,) * (len(shape) - 2), mode=mode)
        assert_agrees(model, x, tolerance=1e-4)


def test_agrees_with_torch_at_the_sizes_of_real_networks() -> None:
    x = torch.from_numpy(noise(1, 3, 56, 56))
    for mode, torch_mode in (("linear", "bilinear"), ("cubic", "bicubic")):
        model = resize(
            x.numpy(), sizes=(224, 224), mode=mode, coordinate_transformation_mode="half_pixel"
        )
        native = torch.nn.functional.interpolate(x, size=(224, 224), mode=torch_mode)
        ours = GraphExecutor(model).run({"x": x}, ["y"])["y"]
        torch.testing.assert_close(ours, native, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_maps_and_differentiates(mode: str) -> None:
    x = noise(1, 2, 4, 3, dtype=np.float64)
    model = resize(x, sizes=(6, 5), mode=mode)
    assert_maps(model, x)
    assert_differentiable(model, x)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    x = noise(2, 3, 5, 6)
    grid = np.random.default_rng(1).uniform(-1.3, 1.3, (2, 4, 7, 2)).astype(np.float32)
    names = {"bilinear": "linear", "bicubic": "cubic"}
    for opset, word in ((16, mode), (20, names.get(mode, mode))):
        model = one_node(
            "GridSample",
            x,
            grid,
            opset=opset,
            mode=word,
            padding_mode=padding,
            align_corners=align,
        )
        assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 3, 4, 5)], ids=str)
def test_affine_grid(align: int, size: tuple[int, ...]) -> None:
    axes = len(size) - 2
    theta = noise(2, axes, axes + 1)
    model = one_node("AffineGrid", theta, np.array(size, np.int64), opset=20, align_corners=align)
    assert_agrees(model, theta, tolerance=1e-4)


def test_refuses_what_it_cannot_do() -> None:
    x = noise(1, 1, 4, 4)
    images = np.zeros((1, 1, 4, 4), np.uint8)
    refused = [
        (resize(images, sizes=(8, 8), mode="linear"), images),
        (
            resize(
                x,
                opset=11,
                sizes=(8, 8),
                mode="linear",
                coordinate_transformation_mode="tf_half_pixel_for_nn",
            ),
            x,
        ),
    ]
    for model, value in refused:
        with pytest.raises(UnsupportedOperatorError):
            GraphExecutor(model).run({"x": torch.from_numpy(value)}, ["y"])


def test_refuses_scales_that_leave_nothing() -> None:
    x = noise(1, 1, 4, 4)
    model = one_node("Resize", x, NO_ROI, scales_of(0.1, 1.0), opset=11)
    with pytest.raises(ModelError, match="leave nothing"):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
