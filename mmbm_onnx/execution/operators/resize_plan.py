"""How each axis of a Resize node maps output places to input places.

Source: ONNX operator specification, Resize, ``coordinate_transformation_mode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """One axis of a Resize.

    Attributes:
        axis: Its position in the tensor.
        size: Elements before.
        target: Elements after.
        scale: Output elements per input element, as the node states it.
        start: Where the region of interest begins, as a share of the axis.
        stop: Where it ends.
        coordinates: The coordinate transformation mode.
    """

    axis: int
    size: int
    target: int
    scale: float
    start: float
    stop: float
    coordinates: str

    @property
    def identity(self) -> bool:
        """Whether the axis stays as it is."""
        whole = self.coordinates != "tf_crop_and_resize" or (self.start, self.stop) == (0.0, 1.0)
        return whole and self.size == self.target and self.scale == 1.0


def plan_axes(
    shape: Sequence[int],
    axes: list[int],
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    roi: Sequence[float] | None,
    coordinates: str,
    policy: str,
) -> list[AxisPlan]:
    """Plans of the resized ``axes``, from either ``scales`` or ``sizes`` (one entry per axis).

    Raises:
        ModelError: The entries do not match the axes, or nothing would be left of one.
        UnsupportedOperatorError: An unknown coordinate mode or aspect ratio policy.
    """
    if coordinates not in COORDINATES:
        raise UnsupportedOperatorError(f"coordinate_transformation_mode {coordinates!r}")
    if coordinates == "tf_crop_and_resize" and (roi is None or len(roi) != 2 * len(axes)):
        raise ModelError(f"tf_crop_and_resize needs a roi of {2 * len(axes)} numbers")
    lengths = [shape[axis] for axis in axes]
    given: Sequence[float] = (sizes if scales is None else scales) or []
    if len(given) != len(axes):
        raise ModelError(f"{len(given)} scales or sizes for {len(axes)} axes")
    if min(lengths) < 1 or min(given) <= 0:
        raise ModelError(f"cannot resize shape {list(shape)} by {list(given)}")
    if scales is not None:
        # Runtimes multiply in float32: 10 * 0.7 is 7 there, and 6.99.. in float64.
        targets = [int(np.float32(n) * np.float32(s)) for n, s in zip(lengths, scales, strict=True)]
        factors = list(scales)
    else:
        targets = [int(size) for size in given]
        factors = [size / n for size, n in zip(targets, lengths, strict=True)]
        if policy != "stretch":
            if policy not in ("not_larger", "not_smaller"):
                raise UnsupportedOperatorError(f"keep_aspect_ratio_policy {policy!r}")
            common = min(factors) if policy == "not_larger" else max(factors)
            factors = [common] * len(axes)
            targets = [int(common * n + 0.5) for n in lengths]
    if min(targets) < 1:
        raise ModelError(f"scales {list(given)} leave nothing of shape {list(shape)}")
    region = list(roi) if roi is not None else [0.0] * len(axes) + [1.0] * len(axes)
    return [
        AxisPlan(axis, n, target, factor, start, stop, coordinates)
        for axis, n, target, factor, start, stop in zip(
            axes, lengths, targets, factors, region[: len(axes)], region[len(axes) :], strict=True
        )
    ]


def source_positions(plan: AxisPlan) -> npt.NDArray[np.float32]:
    """Place in the input of every output element, float32 ``(target,)``, unclamped."""
    place = np.arange(plan.target, dtype=np.float32)
    half, scale = np.float32(0.5), np.float32(plan.scale)
    last, last_target = np.float32(plan.size - 1), np.float32(plan.target - 1)
    mode = plan.coordinates
    if mode == "asymmetric":
        return np.asarray(place / scale)
    if mode == "tf_half_pixel_for_nn":
        return np.asarray((place + half) / scale)
    if mode == "align_corners":
        return np.zeros_like(place) if plan.target == 1 else np.asarray(place * last / last_target)
    if mode == "pytorch_half_pixel" and plan.target == 1:
        return np.zeros_like(place)
    if mode == "tf_crop_and_resize":
        start, stop = np.float32(plan.start), np.float32(plan.stop)
        if plan.target == 1:
            return np.asarray(place + half * (start + stop) * last)
        return np.asarray(start * last + place * (stop - start) * last / last_target)
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(plan.target) / (scale * np.float32(plan.size))
        offset = np.float32(plan.size) / np.float32(2) * (np.float32(1) - adjustment)
        centred = (np.arange(plan.target) + 0.5) / float(scale) - 0.5
        return np.asarray(float(offset) + centred, dtype=np.float32)
    return np.asarray((place + half) / scale - half)
