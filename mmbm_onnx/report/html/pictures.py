"""Samples of a model's input as small PNG pictures inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmbm_onnx.data.layout import ImageInput, LayoutOption, image_input
from mmbm_onnx.errors import DataError
from mmbm_onnx.evaluation.details import Inputs

_LARGEST = 128  # pixels along the longer side of a picture
_MIDDLE = 127.5


@dataclass(frozen=True, eq=False)
class View:
    """How samples become pictures.

    Attributes:
        image: Where the model's input keeps its channels.
        factor: Of each channel, from the input's unit to pixel values, ``(channels,)``.
        offset: Pixel value of each channel's zero, ``(channels,)``.
        bgr: Whether blue comes first.
    """

    image: ImageInput
    factor: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    bgr: bool

    def picture(self, sample: npt.NDArray[Any]) -> str:
        """A sample as a data URI.

        Args:
            sample: In the model's layout, without the batch axis.
        """
        values = self._last(sample) * self.factor + self.offset
        return _png(self._colours(values))

    def gain(self, pattern: npt.NDArray[Any]) -> float:
        """How many times a difference is amplified so that its largest value is just seen whole;
        at least 1."""
        largest = float(np.abs(self._last(pattern) * self.factor).max(initial=0.0))
        return max(1.0, _MIDDLE / largest) if largest > 0 else 1.0

    def difference(self, pattern: npt.NDArray[Any], gain: float) -> str:
        """A difference of samples around mid-grey, as a data URI."""
        values = self._last(pattern) * self.factor * gain + _MIDDLE
        return _png(self._colours(values))

    def _last(self, sample: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return self.image.channels_last(sample).astype(np.float64)

    def _colours(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        finite = np.nan_to_num(values, nan=_MIDDLE)
        pixels = np.clip(np.rint(finite), 0, 255).astype(np.uint8)
        return pixels[..., ::-1] if self.bgr and pixels.shape[-1] == 3 else pixels


def view_of(inputs: Inputs | None) -> View | None:
    """How a model's samples become pictures; None where they are no images.

    Args:
        inputs: How samples are to be seen; None where not known.
    """
    if inputs is None:
        return None
    settings = inputs.preprocessing
    layout = "auto" if settings is None else str(settings["layout"])
    interface = inputs.interface
    if settings is None and len(interface.input_shape) != 4:
        return None  # rows of features, for all that is known
    try:
        image = image_input(interface, cast(LayoutOption, layout))
    except DataError:
        return None
    channels = image.channels
    if settings is None:
        spread = inputs.high - inputs.low
        factor = 255 / spread if spread > 0 else 1.0
        return View(
            image, np.full(channels, factor), np.full(channels, -inputs.low * factor), False
        )
    scale = float(settings["scale"])
    mean = _per_channel(settings["mean"], channels, 0.0)
    std = _per_channel(settings["std"], channels, 1.0)
    return View(image, std / scale, mean / scale, settings["channel_order"] == "bgr")


def _per_channel(values: Any, channels: int, default: float) -> npt.NDArray[np.float64]:
    given = np.asarray(values or [default], np.float64)
    return np.broadcast_to(given, (channels,)).copy()


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    )
    if max(image.size) > _LARGEST:
        image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
