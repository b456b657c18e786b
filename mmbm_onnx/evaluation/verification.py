"""Is a hardened graph, or a detector, still the model it was made from, and does it help?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mmbm_onnx.data import check_accuracy
from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.evaluation.defence import (
    detector_bounds,
    detector_threshold,
    hardened_effective,
    stated_threshold,
)
from mmbm_onnx.evaluation.details import Details, details_of
from mmbm_onnx.evaluation.figures import Answers, Figures, defended_figures, original_figures
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.evaluation.metrics import victims
from mmbm_onnx.evaluation.predictions import (
    DETECTOR_OUTPUTS,
    Verdicts,
    predict,
    predict_detector,
)
from mmbm_onnx.evaluation.quality import Limits, attack_gate, detector_gates, quality_gates
from mmbm_onnx.evaluation.structure import structure_gates
from mmbm_onnx.evaluation.unfolding import unfold
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.mapped import check_unchanged
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.walk import shape_of
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface, Samples

__all__ = ["Limits", "Measurements", "VerifiedFile", "VerifyResult", "verify_graphs"]

SCHEMA = "mmbm-onnx/verify-report"
VERSION = 1


# An attack success rate above this is warned of where no gate is on it.
_SPOKEN_OF = 0.1


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that was measured.

    Attributes:
        samples: Number of clean samples.
        labelled: Whether they have labels.
        triggered: Number of triggered samples that count, 0 without a triggered set.
        bounds: Number of bounds found in the hardened graph.
        original: Figures of the original.
        hardened: Those of the hardened graph; None when it could not be run as the original.
        detector: Those of the detector; None without one, or when it could not be run.
        providers: Execution providers that ran.
    """

    samples: int
    labelled: bool
    triggered: int
    bounds: int
    original: Figures
    hardened: Figures | None
    detector: Figures | None
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A graph that was judged: its role, what messages call it, and its SHA-256 in hex."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """Outcome of a verification.

    Attributes:
        gates: Every condition, in the order it was judged.
        measurements: What was measured.
        files: The graphs.
        notes: What reading the samples decided, one line each.
        warnings: One line each.
        details: Scores and single samples, for a page; not in the JSON.
    """

    gates: tuple[Gate, ...]
    measurements: Measurements
    files: tuple[VerifiedFile, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Details | None = field(default=None, compare=False, repr=False)

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON types; see ``docs/report-schema.md``."""
        measured = asdict(self.measurements)
        measured["providers"] = list(self.measurements.providers)
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "passed": self.passed,
            "gates": [gate.to_dict() for gate in self.gates],
            "measurements": measured,
            "files": [asdict(file) for file in self.files],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def verify_graphs(
    original: OnnxModel,
    hardened: OnnxModel,
    samples: Samples,
    *,
    detector: OnnxModel | None = None,
    triggered: Samples | None = None,
    limits: Limits | None = None,
    interface: Interface | None = None,
    provider: str | None = None,
    threads: int | None = None,
    batch_size: int = 64,
    plausible: bool = True,
    warnings: Sequence[str] = (),
) -> VerifyResult:
    """Run the graphs in ONNX Runtime and judge the hardened one, and the detector, by gates.

    A graph that breaks the original's signature is not run; its structure gates say why. The
    ASR gate judges the detector where there is one, otherwise the hardened graph.

    Args:
        original: The model that was hardened.
        hardened: The graph with bounds.
        samples: Clean samples; with ``y`` accuracy is judged, otherwise agreement with the
            original's decisions.
        detector: The detector graph.
        triggered: Triggered samples with true labels ``y`` and the attacker's class ``target``.
        limits: What is asked for; None for the defaults.
        interface: How the original is fed and read; None to find it.
        provider: ONNX Runtime's execution provider; None is the CPU.
        threads: Threads within one operator; None lets ONNX Runtime choose.
        batch_size: Samples at a time where the model leaves it open.
        plausible: Whether to stop when the original's own accuracy is implausible, as with the
            wrong preprocessing (``data.check_accuracy``): nothing would be told by a drop from it.
        warnings: Lines to hand through to the result.

    Raises:
        OptionError: A limit lacks what it is measured on (a detector, a triggered set).
        DataError: The triggered set lacks ``y`` or ``target``, a set is empty, or the original's
            accuracy is implausible.
        ModelError: ONNX Runtime refuses a graph.
        RuntimeMissingError: ONNX Runtime or the provider is missing.
    """
    limits = limits or Limits()
    _check_options(limits, detector, triggered)
    interface = interface or find_interface(original.proto, label=original.label)
    outputs = _batched_outputs(original, interface)

    def answer(model: OnnxModel, *, verdicts: bool = False) -> tuple[Answers, tuple[str, ...]]:
        session = Session(model.proto, provider=provider, threads=threads, label=model.label)
        ask = predict_detector if verdicts else predict
        asked = [
            ask(session, interface, part.x, outputs=outputs, batch_size=batch_size)
            for part in (samples, triggered)
            if part is not None
        ]
        return Answers(*asked), session.providers

    base, providers = answer(original)
    told = list(warnings)
    if plausible:
        told += _check_plausible(base, samples, interface)
    before = original_figures(base, samples, triggered)
    unfolded = unfold(inline_activation_functions(original.proto)[0], hardened.proto)
    gates, bounds = structure_gates("hardened", original, hardened, unfolded=unfolded)
    after: dict[str, Figures] = {}
    bounded: Answers | None = None
    judging: Answers | None = None
    if _runnable(gates):
        bounded, _ = answer(hardened)
        after["hardened"] = defended_figures(base, bounded, samples, triggered)
        gates += quality_gates("hardened", before, after["hardened"], (base, bounded), limits)
        gates.append(
            hardened_effective(
                original.proto,
                hardened.proto,
                interface,
                samples.x,
                provider=provider,
                threads=threads,
                batch_size=batch_size,
            )
        )
    if detector is not None:
        judged, _ = structure_gates("detector", original, detector, appended=DETECTOR_OUTPUTS)
        judged.append(detector_bounds(original.proto, unfolded.proto, detector.proto, interface))
        if _runnable(judged):
            answers, _ = answer(detector, verdicts=True)
            assert isinstance(answers.clean, Verdicts)
            judging = answers
            after["detector"] = defended_figures(base, answers, samples, triggered)
            judged += quality_gates("detector", before, after["detector"], (base, answers), limits)
            judged += detector_gates(after["detector"], base, answers, limits, bounded)
            judged.append(detector_threshold(detector.proto, answers.clean))
        gates += judged
    last = "hardened" if detector is None else "detector"
    if limits.max_attack_success_rate is not None and last in after:
        gates.append(attack_gate(last, after[last], limits.max_attack_success_rate))
    elif last in after and (rate := after[last].attack_success_rate or 0.0) > _SPOKEN_OF:
        told.append(
            f"the attack of the triggered set still works on {rate:.1%} with the {last} graph, and "
            "no gate is on that; set one with --max-attack-success-rate"
        )

    for model in (original, hardened, detector):
        if model is not None:
            check_unchanged(model.proto)
    judged_files = {"original": original, "hardened": hardened, "detector": detector}
    return VerifyResult(
        gates=tuple(gates),
        measurements=Measurements(
            samples=len(samples),
            labelled=samples.y is not None,
            triggered=_counted(triggered),
            bounds=bounds,
            original=before,
            hardened=after.get("hardened"),
            detector=after.get("detector"),
            providers=providers,
        ),
        files=tuple(
            VerifiedFile(role, model.label, model.sha256)
            for role, model in judged_files.items()
            if model is not None
        ),
        warnings=tuple(told),
        details=details_of(
            samples,
            triggered,
            interface,
            base,
            bounded,
            judging,
            None if detector is None else stated_threshold(detector.proto),
        ),
    )


def _check_options(limits: Limits, detector: OnnxModel | None, triggered: Samples | None) -> None:
    if limits.max_false_positive_rate is not None and detector is None:
        raise OptionError("--max-false-positive-rate needs a detector graph (--detector)")
    if limits.max_attack_success_rate is not None and triggered is None:
        raise OptionError("--max-attack-success-rate needs a triggered set (--triggered)")
    if triggered is not None and (triggered.y is None or triggered.target is None):
        missing = "true labels 'y'" if triggered.y is None else "the attacker's class 'target'"
        raise DataError(f"{triggered.source}: a triggered set needs {missing} of each sample")


def _check_plausible(base: Answers, samples: Samples, interface: Interface) -> list[str]:
    if samples.y is None:
        return []
    scores = base.clean.scores
    if scores.ndim == 1:  # the model ends in ArgMax
        scores = np.eye(interface.classes, dtype=np.float32)[base.clean.classes]
    return check_accuracy(
        scores,
        samples.y,
        interface,
        x=samples.x,
        class_names=samples.class_names,
        source=samples.source,
    ).warnings


def _counted(triggered: Samples | None) -> int:
    if triggered is None or triggered.y is None or triggered.target is None:
        return 0
    return int(victims(triggered.y, triggered.target).sum())


def _runnable(gates: Sequence[Gate]) -> bool:
    """Whether the graph can be fed and read as the original."""
    needed = ("_valid", "_signature")
    return all(gate.passed for gate in gates if gate.name.endswith(needed))


def _batched_outputs(model: OnnxModel, interface: Interface) -> list[str]:
    """The outputs whose axis 0 is, or may be, the batch."""
    names = []
    for info in model.proto.graph.output:
        shape = shape_of(info.type)
        if shape is None or (shape and shape[0] == interface.batch):
            names.append(info.name)
    return names
