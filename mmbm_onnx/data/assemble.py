"""Images into one array of a model's input, decoded straight into their place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmbm_onnx.data.layout import ImageInput
from mmbm_onnx.data.preprocessing import Preprocessing
from mmbm_onnx.errors import DataError


def assemble_images(
    images: Iterable[tuple[str, Image.Image]],
    count: int,
    target: ImageInput,
    dtype: np.dtype[Any],
    preprocessing: Preprocessing,
    max_bytes: int,
) -> npt.NDArray[Any]:
    """Preprocess images one by one into a preallocated array.

    Args:
        images: Name for messages, and image of mode ``L`` or ``RGB``.
        count: How many there are.
        target: The model's input. Where its height or width is dynamic, the first image's size
            after preprocessing is everyone's.
        dtype: The model's input dtype.
        preprocessing: What happens to each.
        max_bytes: The array may not be larger.

    Returns:
        ``(count, *model input shape without batch)`` of ``dtype``.

    Raises:
        DataError: Sizes differ from each other or from the model's, or the array is too large.
    """
    table = preprocessing.table(target, dtype)
    result: npt.NDArray[Any] | None = None
    size, first = (0, 0), ""
    for index, (where, original) in enumerate(images):
        image = preprocessing.shape_image(original, target, where)
        if result is None:
            size, first = image.size, where
            shape = (count, *target.shape(image.height, image.width))
            total = math.prod(shape) * dtype.itemsize
            if total > max_bytes:
                raise DataError(
                    f"{count} samples of {image.width}x{image.height} need {total} bytes, "
                    f"over the limit of {max_bytes}; use fewer samples"
                )
            result = np.empty(shape, dtype)
        elif image.size != size:
            raise DataError(
                f"{where}: {image.width}x{image.height} pixels, but {first} has "
                f"{size[0]}x{size[1]}, and the model fixes no size; set resize"
            )
        pixels = preprocessing.pixels(image)
        place = target.channels_last(result[index])
        for channel in range(target.channels):
            place[..., channel] = table[channel][pixels[..., channel]]
    if result is None:
        raise DataError("no images")
    return result
