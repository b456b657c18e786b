"""Running a classifier or a detector graph in ONNX Runtime over many samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import ModelError
from mmbm_onnx.runtime.batches import run_batches, two_axes, two_columns
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import (
    CORRECTED,
    FLAGGED,
    P_VALUE,
    SCORE,
    SUSPECTED,
    BoolArray,
    FloatArray,
    IntArray,
    Interface,
)
from mmbm_onnx.types import DETECTOR_OUTPUTS as DETECTOR_OUTPUTS


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a classifier answered.

    Attributes:
        outputs: Output name to array ``(n, ...)``, of the outputs that were asked for.
        scores: Values of the classifying output, ``(n, classes)``, two where it has a single one;
            or classes ``(n,)``.
        classes: The decisions, int64 ``(n,)``.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    scores: npt.NDArray[Any]
    classes: IntArray

    @property
    def finite(self) -> BoolArray:
        """Whether every floating-point output of a sample is finite, bool ``(n,)``."""
        result = np.ones(len(self.classes), np.bool_)
        for array in self.outputs.values():
            if _is_float(array):
                # bfloat16 has no isfinite of its own.
                values = array if array.dtype.kind == "f" else array.astype(np.float32)
                result &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        return result


@dataclass(frozen=True, slots=True)
class Verdicts(Predictions):
    """What a detector graph answered; ``classes`` are the decisions after correction.

    Attributes:
        flagged: bool ``(n,)``.
        p_value: float32 ``(n,)``: how often a clean sample scores as high.
        score: float32 ``(n,)``, what it flags by.
        suspected: The original decisions, int64 ``(n,)``.
        corrected: The detector's own statement of its decisions, int64 ``(n,)``.
    """

    flagged: BoolArray
    p_value: FloatArray
    score: FloatArray
    suspected: IntArray
    corrected: IntArray


def predict(
    session: Session,
    interface: Interface,
    x: npt.NDArray[Any],
    *,
    outputs: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Predictions:
    """Answers of a classifier, the largest score of its output being its decision.

    Args:
        session: The model.
        interface: How it is fed and read.
        x: Samples, ``(n, *model input shape without batch)`` in the model's input dtype, n > 0.
        outputs: Further outputs to keep; the classifying one always is.
        batch_size: Samples at a time where the model leaves it open.

    Raises:
        DataError: ``x`` is empty or not of the model's dtype.
        ModelError: ONNX Runtime refuses, or the output is not a row of scores for each sample.
    """
    wanted = tuple(dict.fromkeys((interface.output, *(outputs or ()))))
    results = run_batches(session, interface, x, wanted, batch_size)
    scores = _scores(results[interface.output], interface)
    return Predictions(results, scores, decisions(scores, interface))


def predict_detector(
    session: Session,
    interface: Interface,
    x: npt.NDArray[Any],
    *,
    outputs: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Verdicts:
    """Answers of a detector graph; arguments as `predict`, ``interface`` being the original's.

    Raises:
        DataError: ``x`` is empty or not of the model's dtype.
        ModelError: The graph lacks an output of a detector, or as `predict`.
    """
    missing = [name for name in DETECTOR_OUTPUTS if name not in session.output_names]
    if missing:
        raise ModelError(
            f"not a detector graph: it has no output {', '.join(missing)}; "
            "write one with `mmbm-onnx harden`"
        )
    wanted = tuple(dict.fromkeys((interface.output, *(outputs or ()))))
    results = run_batches(session, interface, x, (*wanted, *DETECTOR_OUTPUTS), batch_size)
    scores = _scores(results[interface.output], interface)
    return Verdicts(
        outputs={name: results[name] for name in wanted},
        scores=scores,
        classes=decisions(scores, interface),
        flagged=results[FLAGGED].astype(np.bool_),
        p_value=results[P_VALUE],
        score=results[SCORE],
        suspected=results[SUSPECTED],
        corrected=results[CORRECTED],
    )


def decisions(output: npt.NDArray[Any], interface: Interface) -> IntArray:
    """Class of each row, int64 ``(n,)``: the largest score, the first of equal ones.

    Args:
        output: Scores ``(n, classes)``, or classes, integers ``(n,)``, where the model ends in
            ArgMax.
        interface: Whose output it is.

    Raises:
        ModelError: It is neither.
    """
    if _is_float(output) and output.ndim == 2 and output.shape[1] == interface.classes:
        scores = output if output.dtype.kind == "f" else output.astype(np.float32)
        classes: IntArray = np.argmax(scores, axis=1).astype(np.int64)
        return classes
    if output.dtype.kind in "iu" and output.ndim == 1:
        return output.astype(np.int64)
    raise ModelError(
        f"output {interface.output!r} is {output.dtype} {list(output.shape)}, expected scores "
        f"(n, {interface.classes}) or integer classes (n,); name the logits with --logits"
    )


def _scores(output: npt.NDArray[Any], interface: Interface) -> npt.NDArray[Any]:
    """Scores ``(n, classes)``; two of a single one, a logit or the probability of class 1."""
    if not _is_float(output) and output.size == len(output):
        return output.reshape(-1)  # classes
    if not interface.single or not _is_float(output) or output.size != len(output):
        return two_axes(output)
    if interface.head == "logit":
        return two_columns(output)
    column = output.reshape(-1, 1)
    return np.concatenate([output.dtype.type(1) - column, column], axis=1)


def _is_float(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
