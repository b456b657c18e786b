"""Interfaces and images that the tests of the data room share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmbm_onnx.types import Interface


def interface(*shape: int | None, dtype=np.float32, classes: int = 3) -> Interface:
    """A model whose input has ``shape`` behind a dynamic batch axis."""
    return Interface("x", np.dtype(dtype), (None, *shape), None, "y", "y", classes)


def save_grey(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def pattern(height: int = 5, width: int = 4) -> np.ndarray:
    """RGB pixels ``(height, width, 3)``, all different."""
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3) * 4
