"""Many samples through a session, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import DataError, ModelError, OptionError
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface

_VALUES_PER_BATCH = 1_500_000  # 100 inputs of 3x70x70, 9 of 3x224x224
_SMALLEST_BATCH = 8


def affordable_batch(values: int, most: int) -> int:
    """How many inputs to run together, so that their activations fit in memory.

    Args:
        values: Numbers in one input, such as 3 * 224 * 224.
        most: What to run where memory is no matter.
    """
    return min(most, max(_SMALLEST_BATCH, _VALUES_PER_BATCH // max(1, values)))


def run_logits(
    session: Session, interface: Interface, x: npt.NDArray[Any], batch_size: int = 64
) -> npt.NDArray[Any]:
    """Logits of a model ``(n, classes)``, two where it has a single one; see ``run_batches``.

    Args:
        session: The model, its logits being an output.
        interface, x, batch_size: As ``run_batches`` has them.
    """
    found = run_batches(session, interface, x, [interface.logits], batch_size)[interface.logits]
    return two_columns(found) if interface.single else two_axes(found)


def two_axes(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scores ``(n, classes)``, also of a head that gives them as ``(n, classes, 1, 1)``."""
    spread = scores.ndim > 2 and scores.size == scores.shape[0] * scores.shape[1]
    return scores.reshape(scores.shape[:2]) if spread else scores


def two_columns(logit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A single logit ``(n,)`` or ``(n, 1)`` as two, ``(n, 2)``: see ``Interface.single``."""
    half = logit.reshape(-1, 1) * logit.dtype.type(0.5)
    return np.concatenate([-half, half], axis=1)


def run_batches(
    session: Session,
    interface: Interface,
    x: npt.NDArray[Any],
    outputs: Sequence[str],
    batch_size: int = 64,
) -> dict[str, npt.NDArray[Any]]:
    """Outputs of a model for any number of samples.

    A fixed batch of the model takes the place of ``batch_size``; the last batch is then filled
    up with copies of its last sample, whose results are dropped.

    Args:
        session: The model.
        interface: How it is fed.
        x: Samples, ``(n, *model input shape without batch)`` in the model's input dtype, n > 0.
        outputs: Names of outputs whose axis 0 is the batch.
        batch_size: Samples at a time, at least 1.

    Returns:
        Output name to array ``(n, ...)``.

    Raises:
        DataError: ``x`` is empty or not of the model's dtype.
        OptionError: ``batch_size`` below 1.
        ModelError: ONNX Runtime refuses, or an output's axis 0 is not the batch.
    """
    if len(x) == 0:
        raise DataError("no samples to run the model on")
    if x.dtype != interface.input_dtype:
        raise DataError(
            f"samples are {x.dtype}, input {interface.input!r} of the model takes "
            f"{interface.input_dtype}"
        )
    if batch_size < 1:
        raise OptionError(f"batch size is {batch_size}, expected at least 1")
    size = interface.batch or batch_size
    results: dict[str, npt.NDArray[Any]] = {}
    for start in range(0, len(x), size):
        chunk = np.ascontiguousarray(x[start : start + size])
        kept = len(chunk)
        if interface.batch is not None and kept < size:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - kept, axis=0)])
        values = session.run(outputs, {interface.input: chunk})
        for name, value in zip(outputs, values, strict=True):
            value = np.asarray(value)
            if value.ndim == 0 or len(value) != len(chunk):
                raise ModelError(
                    f"output {name!r} has shape {value.shape} for a batch of {len(chunk)}: "
                    "its axis 0 is not the batch"
                )
            if start == 0:
                results[name] = np.empty((len(x), *value.shape[1:]), value.dtype)
            elif value.shape[1:] != results[name].shape[1:]:
                raise ModelError(
                    f"output {name!r} has shape {value.shape[1:]} per sample in one batch and "
                    f"{results[name].shape[1:]} in another"
                )
            results[name][start : start + kept] = value[:kept]
    return results
