"""Samples of models that take integers: tokens, or pixels as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import DataError


def as_integers(x: npt.NDArray[Any], dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    """Integers in another integer dtype, contiguous.

    Raises:
        DataError: Values overflow it.
    """
    limits = np.iinfo(dtype)
    if x.size and (int(x.min()) < limits.min or int(x.max()) > limits.max):
        raise DataError(
            f"{where}: values from {int(x.min())} to {int(x.max())} overflow the model's {dtype} "
            "input"
        )
    return np.ascontiguousarray(x.astype(dtype, copy=False))
