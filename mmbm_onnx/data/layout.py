"""Where a model's input, or an array of images, keeps its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import DataError
from mmbm_onnx.types import Interface

Layout = Literal["nchw", "nhwc", "nhw"]
LayoutOption = Literal["auto", "nchw", "nhwc"]

# Images have one channel or three.
_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A model's input seen as an image.

    Attributes:
        layout: Order of its axes; ``"nhw"`` is a grey image without a channel axis.
        channels: 1 or 3.
        height: In pixels, or None for any.
        width: In pixels, or None for any.
    """

    layout: Layout
    channels: int
    height: int | None
    width: int | None

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one sample of that size, without the batch axis."""
        if self.layout == "nchw":
            return (self.channels, height, width)
        if self.layout == "nhwc":
            return (height, width, self.channels)
        return (height, width)

    def channels_last(self, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view ``(height, width, channels)`` of one sample of the model's input."""
        if self.layout == "nchw":
            return np.moveaxis(sample, 0, -1)
        return sample if self.layout == "nhwc" else sample[..., None]


def image_input(interface: Interface, layout: LayoutOption = "auto") -> ImageInput:
    """How a model's input holds an image.

    Args:
        interface: The model's.
        layout: Forced order of axes; ``"auto"`` finds the axis that has 1 or 3 entries.

    Raises:
        DataError: The input is no image, or its channel axis cannot be told.
    """
    shape = interface.input_shape
    name = f"input {interface.input!r} of shape {_text(shape)}"
    kind = interface.input_dtype.name
    if interface.tokens:
        raise DataError(
            f"{name} is looked up in a table, not seen; give samples as {kind} x in a .npz"
        )
    if len(shape) == 3 and layout != "auto":
        raise DataError(f"{name} has no channel axis; leave the layout out")
    if len(shape) not in (3, 4):
        raise DataError(f"{name} takes no images; give samples as {kind} x in a .npz")
    fits = [image for image in _images(shape) if layout in ("auto", image.layout)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise DataError(f"{name} could be NCHW or NHWC; give the layout")
    if layout == "auto":
        raise DataError(
            f"{name} has no axis of 1 or 3 channels; give samples as {kind} x in a .npz"
        )
    raise DataError(f"{name} is not {layout.upper()} with 1 or 3 channels")


def takes_images(interface: Interface) -> bool:
    """Whether a model's input can be seen as an image, in one layout or another."""
    return not interface.tokens and bool(_images(interface.input_shape))


def _images(shape: tuple[int | None, ...]) -> list[ImageInput]:
    """What a model's input is as an image, in each layout that its shape allows."""
    if len(shape) == 3:
        return [ImageInput("nhw", 1, shape[1], shape[2])]
    fits: list[ImageInput] = []
    if len(shape) == 4 and shape[1] in _CHANNELS:
        fits.append(ImageInput("nchw", int(shape[1]), shape[2], shape[3]))
    if len(shape) == 4 and shape[3] in _CHANNELS:
        fits.append(ImageInput("nhwc", int(shape[3]), shape[1], shape[2]))
    return fits


def as_channels_last(
    x: npt.NDArray[np.uint8], target: ImageInput, where: str
) -> npt.NDArray[np.uint8]:
    """A view ``(n, height, width, channels)`` of uint8 images NHWC, NCHW or NHW (grey).

    Args:
        x: The images.
        target: The model's input; its layout and size decide where the shape alone cannot.
        where: Name of the array, for messages.

    Raises:
        DataError: The shape is none of these, or it is two of them.
    """
    if x.ndim == 3:
        return x[..., None]
    if x.ndim == 4:
        last, first = x.shape[3] in _CHANNELS, x.shape[1] in _CHANNELS
        if last and first:
            size = (target.height, target.width)
            last = x.shape[1:3] == size
            first = x.shape[2:4] == size
            if last == first:
                raise DataError(
                    f"{where}: uint8 images of shape {x.shape} could be NHWC or NCHW; "
                    "give x as float in the model's layout"
                )
        if last:
            return x
        if first:
            return np.moveaxis(x, 1, -1)
    raise DataError(
        f"{where}: uint8 of shape {x.shape} holds no images; expected (n, height, width), "
        "or (n, height, width, channels), or (n, channels, height, width), with 1 or 3 channels"
    )


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if axis is None else str(axis) for axis in shape) + ")"
