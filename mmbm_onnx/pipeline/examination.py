"""What is checked of a model and of samples before anything is computed from them.

Without torch, so that a wrong path or a wrong label is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.data import check_accuracy, check_decided, check_samples
from mmbm_onnx.errors import ModelError, OptionError
from mmbm_onnx.evaluation.compare import telling_columns
from mmbm_onnx.evaluation.predictions import predict
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.quantization import quantizing_node
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.validity import objection
from mmbm_onnx.report.pieces import CleanSet
from mmbm_onnx.runtime.batches import affordable_batch, run_logits
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import IntArray, Interface, Samples

_TRIED, _COMPANY = 6, 8  # samples that are run again, and how many run together then
# What may change then: of how far logits vary, and of their size, by rounding.
_SHARED, _NOISE, _HALF_NOISE = 2e-2, 1e-5, 5e-3
PARITY_SAMPLES = 8  # that torch is compared with ONNX Runtime on
BATCH = 64  # samples that run together, where they are small enough


@dataclass(frozen=True, slots=True)
class Examined:
    """What a model makes of samples that passed every check.

    Attributes:
        decided: Its decisions, int64 ``(n,)``.
        providers: Execution providers that ran it.
        warnings: One line each.
    """

    decided: IntArray
    providers: tuple[str, ...]
    warnings: tuple[str, ...]


def valid_graph(model: OnnxModel) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph to work on, and the activation functions that were inlined in it.

    Raises:
        ModelError: It fails the full check of ``onnx.checker``.
    """
    # What we write is checked in full, so what we start from must pass the same check.
    if text := objection(model.proto):
        raise ModelError(f"{model.label}: fails onnx.checker's full check ({text[:300]})")
    return inline_activation_functions(model.proto)


def check_not_quantized(
    model: OnnxModel, proto: onnx.ModelProto, interface: Interface, instead: str
) -> None:
    """Refuse a model whose activations are rounded: it has no gradients.

    Args:
        model: The original.
        proto: The graph to work on.
        interface: How it is read.
        instead: What to do.

    Raises:
        ModelError: It is such a model.
    """
    rounding = quantizing_node(proto, interface.logits)
    if rounding is not None:
        raise ModelError(
            f"{model.label}: is quantized ({rounding.op_type}, output {rounding.output[0]!r}); "
            f"{instead}"
        )


def examine(
    model: OnnxModel,
    proto: onnx.ModelProto,
    interface: Interface,
    samples: Samples,
    *,
    min_accuracy: float | None = None,
    provider: str | None = None,
    threads: int | None = None,
) -> Examined:
    """Run samples through a model in ONNX Runtime and check that both make sense together.

    Args:
        model: The original.
        proto: The graph to work on.
        interface: How it is fed and read.
        samples: Clean samples.
        min_accuracy: Refuse a model with a lower accuracy on them.
        provider, threads: Of ONNX Runtime.

    Raises:
        DataError, ModelError, OptionError, RuntimeMissingError: As ``harden``.
    """
    warnings = [*samples.warnings, *check_samples(samples, interface)]
    session = Session(
        with_outputs(proto, [interface.logits]),
        provider=provider,
        threads=threads,
        label=model.label,
    )
    logits = _original_logits(session, interface, samples)
    decided = np.asarray(logits.argmax(axis=1), dtype=np.int64)
    warnings += check_decided(samples, interface, decided)
    _check_independent(session, interface, samples, logits, half=has_halves(proto))
    _check_decision(session, interface, samples, decided)
    if samples.y is not None:
        check = check_accuracy(
            logits,
            samples.y,
            interface,
            minimum=min_accuracy,
            x=samples.x,
            class_names=samples.class_names,
            source=samples.source,
        )
        warnings += check.warnings
    elif min_accuracy is not None:
        raise OptionError("min_accuracy needs a clean set with labels")
    return Examined(decided, session.providers, tuple(warnings))


def clean_set(samples: Samples, fit: int, calibration: int, decided: IntArray) -> CleanSet:
    """What a report tells of the samples."""
    return CleanSet(
        source=samples.source,
        samples=len(samples),
        fit=fit,
        calibration=calibration,
        classes=len(np.unique(decided if samples.y is None else samples.y)),
        class_names=samples.class_names,
        has_labels=samples.y is not None,
        preprocessing=samples.preprocessing,
        notes=samples.notes,
    )


def _original_logits(
    session: Session, interface: Interface, samples: Samples
) -> npt.NDArray[np.float32]:
    size = affordable_batch(samples.x[0].size, BATCH)
    found = run_logits(session, interface, samples.x, size)
    logits: npt.NDArray[np.float32] = found.astype(np.float32)
    if not np.isfinite(logits).all():
        raise ModelError(
            f"{samples.source}: the original model gives logits that are not finite; check the "
            "preprocessing, or write a large negative number where it masks a class by -inf"
        )
    return logits


def _check_decision(
    session: Session, interface: Interface, samples: Samples, decided: IntArray
) -> None:
    """Make sure that a decision the model tells by itself is that of its logits.

    Raises:
        ModelError: It is another one.
    """
    few = samples.x[:_TRIED]
    told = predict(session, interface, few, batch_size=len(few))
    if told.scores.ndim == 1 and not np.array_equal(told.classes, decided[: len(few)]):
        raise ModelError(
            f"output {interface.output!r} is not the class of the largest of the logits "
            f"{interface.logits!r}; name the logits that it decides by with --logits"
        )


def _check_independent(
    session: Session,
    interface: Interface,
    samples: Samples,
    logits: npt.NDArray[np.float32],
    *,
    half: bool,
) -> None:
    """Make sure that a sample's logits are its own, whatever runs with it.

    Raises:
        ModelError: Others change them, as in training mode: no figure would mean anything.
    """
    telling = telling_columns(logits)
    if len(samples) < 2 or interface.batch == 1 or not telling.any():
        return
    size = interface.batch or _COMPANY
    tried = np.arange(min(len(samples), _TRIED))
    # Each in a batch of its own, beside nothing but copies of another sample.
    rows = np.repeat((tried + len(samples) // 2) % len(samples), size)
    rows[::size] = tried
    again = run_logits(session, interface, samples.x[rows], size)[::size].astype(np.float32)
    values = logits[:, telling]
    spread = float((values.max(axis=0) - values.min(axis=0)).max())
    allowed = _SHARED * spread + (_HALF_NOISE if half else _NOISE) * np.abs(values).max(axis=0)
    differences = np.abs(again - logits[tried])[:, telling].max(axis=0)
    difference = float(differences.max())
    if not (differences <= allowed).all():
        raise ModelError(
            f"{samples.source}: logits of a sample change with the samples that it runs with, by "
            f"{difference:.2g} where a logit varies by {spread:.2g}; export it in evaluation "
            "mode, with the batch on axis 0 and nothing computed along it"
        )
