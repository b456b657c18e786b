"""Image files to 8-bit pixels: every mode is handled on purpose or refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmbm_onnx.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""File name endings, in lower case, of what is read as an image."""

# Pillow tries no other decoder, whatever the bytes look like.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")

_UNREADABLE = "not a readable PNG, JPEG, BMP or WebP image"

_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_ALPHA = frozenset({"LA", "PA", "RGBA"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_GREY = frozenset({"1", "L", "LA"})


def is_image_name(path: Path) -> bool:
    """Whether a file's name ends like an image's, in any case of letters."""
    return path.suffix.lower() in SUFFIXES


def decode_image(path: Path) -> tuple[Image.Image, bool]:
    """Decode one file into 8-bit grey (mode ``L``) or colour (mode ``RGB``).

    The EXIF orientation is applied. 16-bit grey is scaled to 8 bit (divided by 257 and rounded),
    not clipped; Pillow itself keeps the high byte of 16-bit colour. Alpha is dropped, the colours
    under it kept, as the usual training pipelines do (``convert("RGB")``). Palettes become RGB.
    CMYK becomes RGB without a colour profile; embedded profiles are ignored throughout. Of a
    camera's multi-picture JPEG the first picture is taken; animations are refused.

    Returns:
        The image, and whether it had an alpha channel or a transparent colour.

    Raises:
        DataError: The file is unreadable, truncated, no image, larger than
            ``PIL.Image.MAX_IMAGE_PIXELS``, an animation, or of a mode that has no 8-bit meaning.
    """
    try:
        with warnings.catch_warnings():
            # Pillow merely warns of a decompression bomb until it is twice the limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview
                    raise DataError(f"{path}: an animation of {frames} frames, expected one image")
                image.load()
                upright = ImageOps.exif_transpose(image)
        alpha = upright.mode in _ALPHA or "transparency" in upright.info
        return _to_8_bit(upright, path), alpha
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: too many pixels for a sample, possibly a decompression bomb "
            f"(limit {Image.MAX_IMAGE_PIXELS})"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: {_UNREADABLE}: {_unknown(path)}") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own, of what the file holds
            raise _unreadable(path, error) from error
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
    return DataError(f"{path}: {_UNREADABLE}: {reason}")


def _unknown(path: Path) -> str:
    """Why no decoder knows a file."""
    try:
        empty = path.stat().st_size == 0
    except OSError:
        empty = False
    return "it is empty" if empty else "what it begins with is none of them; it may be damaged"


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """An ``L`` or ``RGB`` image with 1 channel (ITU-R 601 luma) or 3 (grey is replicated)."""
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _to_8_bit(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{path}: grey values outside 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in _COLOUR:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode in _GREY:
        return image if image.mode == "L" else image.convert("L")
    raise DataError(f"{path}: image mode {image.mode!r} has no 8-bit meaning")
