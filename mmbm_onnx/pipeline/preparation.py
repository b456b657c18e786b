"""What comes before learning: survey the model, read and check the samples, divide them.

Without torch, so that a wrong path or a wrong label is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.data import check_accuracy, check_samples, split
from mmbm_onnx.errors import ModelError, NothingToHardenError, OptionError
from mmbm_onnx.evaluation.compare import telling_columns
from mmbm_onnx.evaluation.predictions import predict
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.quantization import quantizing_node
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.sites import SiteReport, find_sites
from mmbm_onnx.graph.validity import objection
from mmbm_onnx.graph.walk import ancestors
from mmbm_onnx.report.pieces import CleanSet
from mmbm_onnx.runtime.batches import affordable_batch, run_logits
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import IntArray, Interface, Samples

_TRIED, _COMPANY = 6, 8  # samples that are run again, and how many run together then
# What may change then: of how far logits vary, and of their size, by rounding.
_SHARED, _NOISE, _HALF_NOISE = 2e-2, 1e-5, 5e-3
BATCH = 64  # samples that run together, where they are small enough


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model and samples that learning can start from.

    Attributes:
        model: The original.
        proto: The graph to work on: the original's, activation functions inlined.
        interface: How it is fed and read.
        report: Its sites.
        clean_set: What the report tells of the samples.
        fit: The part to learn from.
        calibration: The part for null and gates, and for steering.
        providers: Execution providers that ran the original.
        warnings: One line each.
    """

    model: OnnxModel
    proto: onnx.ModelProto
    interface: Interface
    report: SiteReport
    clean_set: CleanSet
    fit: Samples
    calibration: Samples
    providers: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(
    model: OnnxModel,
    read: Callable[[Interface], Samples],
    *,
    input_name: str | None,
    logits_name: str | None,
    calibration_fraction: float,
    min_accuracy: float | None,
    seed: int,
    provider: str | None,
    threads: int | None,
) -> Prepared:
    """Check everything that can be checked before learning; see ``harden`` for the options.

    Args:
        model: The original.
        read: Reads the clean set for a model's interface.

    Raises:
        MmbmError: As ``harden``.
    """
    proto, inlined = _survey(model)
    interface = find_interface(
        proto, input_name=input_name, logits_name=logits_name, label=model.label
    )
    report = _find_sites(model, proto, interface)
    samples = read(interface)
    warnings = [f"local functions with activations were inlined: {', '.join(inlined)}"] * bool(
        inlined
    )
    warnings += [*samples.warnings, *check_samples(samples, interface)]
    session = Session(
        with_outputs(proto, [interface.logits]),
        provider=provider,
        threads=threads,
        label=model.label,
    )
    logits = _original_logits(session, interface, samples)
    decided = np.asarray(logits.argmax(axis=1), dtype=np.int64)
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
    fit, calibration = split(samples, fraction=1 - calibration_fraction, seed=seed, labels=decided)
    return Prepared(
        model=model,
        proto=proto,
        interface=interface,
        report=report,
        clean_set=_clean_set(samples, len(fit), len(calibration), decided),
        fit=fit,
        calibration=calibration,
        providers=session.providers,
        warnings=tuple(warnings),
    )


def _survey(model: OnnxModel) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph to work on, and the functions inlined in it."""
    before = read_provenance(model.proto)
    if before:
        raise ModelError(
            f"{model.label}: is hardened already (method {before.get('method', 'unknown')}, "
            f"from the original {before.get('original_sha256', 'unknown')[:12]}); start from "
            "the original"
        )
    # What we write is checked in full, so what we start from must pass the same check.
    if text := objection(model.proto):
        raise ModelError(f"{model.label}: fails onnx.checker's full check ({text[:300]})")
    return inline_activation_functions(model.proto)


def _find_sites(model: OnnxModel, proto: onnx.ModelProto, interface: Interface) -> SiteReport:
    rounding = quantizing_node(proto, interface.logits)
    if rounding is not None:
        raise ModelError(
            f"{model.label}: is quantized ({rounding.op_type}, output {rounding.output[0]!r}); "
            "harden the model as it was before, then quantize the hardened graph"
        )
    report = find_sites(proto, logits=interface.logits)
    if not report.sites:
        reasons = sorted({f"{item.op_type}: {item.reason}" for item in report.uncovered})
        found = f" ({'; '.join(reasons[:3])})" if reasons else ""
        raise NothingToHardenError(
            f"{model.label}: no activation takes a bound{found}; nothing to harden"
        )
    start = interface.start
    inner = [site.tensor for site in report.sites if not site.scope]
    if start is not None and inner and start not in ancestors(proto.graph, inner):
        raise ModelError(
            f"{model.label}: no activation follows {start!r}, which the integers of input "
            f"{interface.input!r} are embedded as, so attacks would meet no bound; give the "
            "embedded values as the input"
        )
    return report


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


def _clean_set(samples: Samples, fit: int, calibration: int, decided: IntArray) -> CleanSet:
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
