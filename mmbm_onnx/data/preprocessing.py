"""How 8-bit images become a model's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmbm_onnx.data.images import with_channels
from mmbm_onnx.data.layout import ImageInput, LayoutOption
from mmbm_onnx.errors import DataError

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
ChannelOrder = Literal["rgb", "bgr"]

RESAMPLES: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From pixels 0 to 255 to the model: resize, crop, ``(pixel * scale - mean) / std``.

    Without ``resize`` and ``crop`` an image whose size differs from the model's is resized to it
    exactly, its aspect ratio not kept. With either, they must lead to the model's size.

    Attributes:
        scale: Factor on pixel values; None is 1/255, of a model that takes integers 1.
        mean: Subtracted after scaling: one value, or one per channel in the model's channel
            order; empty for none.
        std: Divided by after that, likewise.
        resize: Shortest side in pixels (aspect ratio kept), or ``(height, width)``, or None.
        crop: ``(height, width)`` cut from the centre after resizing, or None.
        resample: Filter for resizing; all but ``nearest`` average over pixels when shrinking.
        channel_order: Order in which the model takes colours.
        layout: Order of the model input's axes; ``auto`` tells it from the shape.
        notes: What reading a configuration file left out, for the report.

    Raises:
        DataError: A value has the wrong type or is out of range.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    resample: Resample = "bilinear"
    channel_order: ChannelOrder = "rgb"
    layout: LayoutOption = "auto"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Lists, as JSON has them, become tuples.
        for name in ("mean", "std", "crop", "notes", "resize"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.scale is not None:
            _require_number("scale", self.scale)
        if self.scale == 0:
            raise DataError("preprocessing: scale is 0, every image would look the same")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) not in (0, 1, 3):
                raise DataError(f"preprocessing: {name} is {values!r}, expected 1 or 3 numbers")
            for value in values:
                _require_number(name, value)
        if any(value <= 0 for value in self.std):
            raise DataError(f"preprocessing: std is {self.std!r}, expected positive numbers")
        if isinstance(self.resize, tuple):
            _require_size("resize", self.resize)
        elif self.resize is not None:
            _require_size("resize", (self.resize, self.resize))
        if self.crop is not None:
            _require_size("crop", self.crop)
        _require_choice("resample", self.resample, RESAMPLES)
        _require_choice("channel_order", self.channel_order, get_args(ChannelOrder))
        _require_choice("layout", self.layout, get_args(LayoutOption))

    @classmethod
    def from_file(cls, path: str | Path) -> Preprocessing:
        """Read a Hugging Face ``preprocessor_config.json``, or JSON with our own field names.

        Raises:
            DataError: The file is unreadable, has unknown keys, or asks for what is not done here.
        """
        from mmbm_onnx.data.preprocessing_file import read_preprocessing

        return read_preprocessing(Path(path))

    def factor(self, dtype: np.dtype[Any]) -> float:
        """``scale``, or what it is for a model's input dtype where it was not given."""
        if self.scale is not None:
            return self.scale
        return 1.0 if dtype.kind in "iu" else 1 / 255

    def describe(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        """Every field as JSON takes it, for the report; ``dtype`` is the model's."""
        used = dataclasses.replace(self, scale=self.factor(dtype))
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(used)
            for value in (getattr(used, field.name),)
        }

    def table(self, target: ImageInput, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """What each of the 256 pixel values becomes, ``(channels, 256)``, in the model's dtype.

        Computed in float64 and rounded once.

        Raises:
            DataError: ``mean`` or ``std`` do not fit the channels, or values overflow the dtype or
                are no whole numbers where it is one of integers.
        """
        pixels = np.arange(256, dtype=np.float64)
        mean = _per_channel("mean", self.mean, target.channels, 0.0)
        std = _per_channel("std", self.std, target.channels, 1.0)
        values = (pixels * self.factor(dtype) - mean[:, None]) / std[:, None]
        if dtype.kind in "iu":
            return _whole(values, dtype)
        with np.errstate(over="ignore"):
            table = values.astype(dtype)
        if not np.isfinite(table.astype(np.float64)).all():
            raise DataError(f"preprocessing: pixel values overflow the model's {dtype} input")
        return table

    def shape_image(self, image: Image.Image, target: ImageInput, where: str) -> Image.Image:
        """Channels, resizing and cropping of one image.

        Args:
            image: Mode ``L`` or ``RGB``.
            target: The model's input.
            where: Name of the image, for messages.

        Raises:
            DataError: The result would not have the model's size, or be absurdly large.
        """
        image = with_channels(image, target.channels)
        if self.resize is not None:
            image = self._resized(image, self._resize_to(image), where)
        elif self.crop is None and target.height is not None and target.width is not None:
            image = self._resized(image, (target.height, target.width), where)
        if self.crop is not None:
            image = _centre_crop(image, self.crop, where)
        for axis, got, wanted in (
            ("height", image.height, target.height),
            ("width", image.width, target.width),
        ):
            if wanted is not None and got != wanted:
                raise DataError(
                    f"{where}: {axis} is {got} after preprocessing, the model takes {wanted}; "
                    "change resize and crop"
                )
        return image

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Pixels ``(height, width, channels)`` in the model's channel order."""
        array = np.asarray(image)
        if array.ndim == 2:
            return array[..., None]
        return array[..., ::-1] if self.channel_order == "bgr" else array

    def _resize_to(self, image: Image.Image) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize
        assert self.resize is not None
        short = min(image.size)
        return (
            max(1, self.resize * image.height // short),
            max(1, self.resize * image.width // short),
        )

    def _resized(self, image: Image.Image, size: tuple[int, int], where: str) -> Image.Image:
        height, width = size
        if image.size == (width, height):
            return image
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and height * width > limit:
            raise DataError(f"{where}: resizing to {width}x{height} exceeds {limit} pixels")
        return image.resize((width, height), RESAMPLES[self.resample])


def _centre_crop(image: Image.Image, crop: tuple[int, int], where: str) -> Image.Image:
    height, width = crop
    if image.height < height or image.width < width:
        raise DataError(
            f"{where}: {image.width}x{image.height} is smaller than the crop {width}x{height}; "
            "set resize"
        )
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def _per_channel(
    name: str, values: tuple[float, ...], channels: int, default: float
) -> npt.NDArray[np.float64]:
    if len(values) > 1 and len(values) != channels:
        raise DataError(
            f"preprocessing: {name} has {len(values)} values, the model takes {channels} "
            f"channel{'s' * (channels > 1)}; give one value per channel, or one for all, by "
            f"--{name} or in the --preprocess file"
        )
    return np.broadcast_to(np.asarray(values or (default,), np.float64), (channels,))


def _whole(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    if (
        values == np.round(values)
    ).all() and limits.min <= values.min() <= values.max() <= limits.max:
        return values.astype(dtype)
    raise DataError(
        f"preprocessing: pixels become values from {values.min():.4g} to {values.max():.4g}, the "
        f"model takes whole numbers from {limits.min} to {limits.max} ({dtype}); choose scale, "
        "mean and std so"
    )


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"preprocessing: {name} holds {value!r}, expected a finite number")


def _require_size(name: str, size: object) -> None:
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size)
    ):
        raise DataError(f"preprocessing: {name} is {size!r}, expected pixels, at least 1")


def _require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    if value not in tuple(choices):
        raise DataError(f"preprocessing: {name} is {value!r}, expected one of {', '.join(choices)}")
