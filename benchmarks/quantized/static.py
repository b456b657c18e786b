"""Static quantization as docs/quantizing.md has it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

_BATCH = 50


class Batches(CalibrationDataReader):
    """Clean samples, to see the ranges of activations on."""

    def __init__(self, name: str, x: npt.NDArray[Any]) -> None:
        self._batches: Iterator[dict[str, npt.NDArray[Any]]] = iter(
            [{name: x[start : start + _BATCH]} for start in range(0, len(x), _BATCH)]
        )

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next batch, or None."""
        return next(self._batches, None)


def quantized(proto: onnx.ModelProto, x: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """A model in int8: QDQ, weights per channel in 7 bits, ranges from clean samples."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        quantize_static(
            source,
            target,
            Batches(proto.graph.input[0].name, x),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)
