"""The steps of a hardening, in order: read, check, learn, rewrite, pair, measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch

from mmbm_onnx import __version__
from mmbm_onnx.data import check_accuracy, check_samples, split
from mmbm_onnx.errors import ModelError, NothingToHardenError, OptionError, RuntimeMissingError
from mmbm_onnx.evaluation.figures import Answers, Figures, defended_figures, original_figures
from mmbm_onnx.evaluation.gates import Gate, at_most
from mmbm_onnx.evaluation.latency import Latency, measure_latency
from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import check_parity
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.sites import SiteReport, find_sites
from mmbm_onnx.learning.fit import learn_bounds
from mmbm_onnx.learning.settings import Settings
from mmbm_onnx.pipeline.result import HardenResult
from mmbm_onnx.pipeline.written import Written, with_output, write_graphs
from mmbm_onnx.report.json_report import harden_report
from mmbm_onnx.report.pieces import (
    CleanSet,
    DetectorPart,
    Execution,
    Method,
    Parity,
    Tool,
    summarize_site,
)
from mmbm_onnx.runtime.batches import run_batches
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Granularity, IntArray, Interface, Progress, Samples

_PARITY_SAMPLES = 8


@dataclass
class Pipeline:
    """One hardening. Fields are the arguments of ``harden`` (``preprocessing`` as it is reported,
    None for samples taken as they are); ``run`` does it."""

    settings: Settings
    granularity: Granularity
    wants_detector: bool
    false_positive_rate: float
    max_accuracy_drop: float
    preprocessing: Mapping[str, Any] | None
    input_name: str | None
    logits_name: str | None
    device: str
    provider: str | None
    threads: int | None
    seed: int
    calibration_fraction: float
    min_accuracy: float | None
    progress: Callable[[Progress], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def run(self, model: OnnxModel, read: Callable[[Interface], Samples]) -> HardenResult:
        """Do it; see ``harden``.

        Args:
            model: The original.
            read: Reads the clean set for a model's interface.
        """
        device = torch_device(self.device)
        with torch_settings(self.threads):
            with self._phase("read"):
                proto, interface, report = self._survey(model)
                samples = read(interface)
                self.warnings += [*samples.notes, *check_samples(samples, interface)]
                session = Session(proto, provider=self.provider, threads=self.threads)
                logits = self._original_logits(proto, interface, samples)
                fit, calibration = self._divide(samples, logits, interface)
            with self._phase("parity"):
                classifier = Classifier(proto, interface, report.sites, device)
                parity = check_parity(
                    classifier, proto, fit.x[:_PARITY_SAMPLES], provider=self.provider
                )
            with self._phase("learn"):
                learned = learn_bounds(
                    classifier,
                    fit,
                    report.sites,
                    self.settings,
                    granularity=self.granularity,
                    seed=self.seed,
                    progress=self.progress,
                )
            with self._phase("write"):
                written = write_graphs(
                    model=model,
                    proto=proto,
                    interface=interface,
                    sites=report.sites,
                    learned=learned,
                    classifier=classifier,
                    fit=fit,
                    calibration=calibration,
                    false_positive_rate=(self.false_positive_rate if self.wants_detector else None),
                    stamps=self._stamps(model),
                    provider=self.provider,
                    threads=self.threads,
                )
                self.warnings += written.warnings
            with self._phase("evaluate"):
                figures = _figures(written, calibration)
                latency = self._latency(proto, written, interface, calibration)
        gates = self._gates(figures)
        return HardenResult(
            hardened=written.hardened,
            detector=written.detector,
            bounds=learned.bounds,
            report=harden_report(
                tool=Tool(__version__),
                model=model,
                interface=interface,
                clean_set=self._clean_set(samples, fit, calibration, logits),
                method=Method(self.settings.method, self.granularity, self.settings.describe()),
                sites=[
                    summarize_site(
                        site,
                        learned.bounds[site.tensor],
                        clean_max=written.clean_max[site.tensor],
                        share_above=written.share_above[site.tensor],
                    )
                    for site in report.sites
                ],
                uncovered=report.uncovered,
                figures=figures,
                detector=self._detector_part(written),
                latency=latency,
                execution=Execution(str(device), self.provider, session.providers, self.threads),
                parity=Parity(parity.max_relative_difference, parity.tolerance),
                seed=self.seed,
                seconds=self.seconds,
                gates=gates,
                warnings=self.warnings,
            ),
            gates=gates,
            warnings=tuple(self.warnings),
        )

    def _survey(self, model: OnnxModel) -> tuple[onnx.ModelProto, Interface, SiteReport]:
        """The graph to work on, how it is fed, and its sites."""
        before = read_provenance(model.proto)
        if before:
            raise ModelError(
                f"{model.label}: is hardened already (method {before.get('method', 'unknown')}, "
                f"from the original {before.get('original_sha256', 'unknown')[:12]}); start from "
                "the original"
            )
        _check_original(model)
        proto, inlined = inline_activation_functions(model.proto)
        if inlined:
            self.warnings.append(
                f"local functions with activations were inlined: {', '.join(inlined)}"
            )
        interface = find_interface(
            proto,
            input_name=self.input_name,
            logits_name=self.logits_name,
            label=model.label,
        )
        report = find_sites(proto, logits=interface.logits)
        if not report.sites:
            reasons = sorted({f"{item.op_type}: {item.reason}" for item in report.uncovered})
            found = f" ({'; '.join(reasons[:3])})" if reasons else ""
            raise NothingToHardenError(
                f"{model.label}: no activation takes a bound{found}; nothing to harden"
            )
        return proto, interface, report

    def _original_logits(
        self, proto: onnx.ModelProto, interface: Interface, samples: Samples
    ) -> np.ndarray[Any, Any]:
        session = Session(
            with_output(proto, interface.logits), provider=self.provider, threads=self.threads
        )
        found = run_batches(session, interface, samples.x, [interface.logits])
        logits: np.ndarray[Any, Any] = found[interface.logits].astype(np.float32)
        if not np.isfinite(logits).all():
            raise ModelError(
                f"{samples.source}: the original model gives logits that are not finite; check "
                "the preprocessing"
            )
        return logits

    def _divide(
        self, samples: Samples, logits: np.ndarray[Any, Any], interface: Interface
    ) -> tuple[Samples, Samples]:
        if samples.y is not None:
            check = check_accuracy(
                logits,
                samples.y,
                interface,
                minimum=self.min_accuracy,
                x=samples.x,
                class_names=samples.class_names,
                source=samples.source,
            )
            self.warnings += check.warnings
        elif self.min_accuracy is not None:
            raise OptionError("min_accuracy needs a clean set with labels")
        return split(
            samples,
            fraction=1 - self.calibration_fraction,
            seed=self.seed,
            labels=_decisions(logits) if samples.y is None else None,
        )

    def _stamps(self, model: OnnxModel) -> dict[str, str]:
        return {
            "version": __version__,
            "original_sha256": model.sha256,
            "method": self.settings.method,
            "granularity": self.granularity,
            "seed": str(self.seed),
        }

    def _latency(
        self,
        proto: onnx.ModelProto,
        written: Written,
        interface: Interface,
        calibration: Samples,
    ) -> tuple[Latency, ...]:
        graphs = {"original": proto, "hardened": written.hardened}
        if written.detector is not None:
            graphs["detector"] = written.detector
        return measure_latency(
            graphs,
            interface,
            x=calibration.x,
            seed=self.seed,
            provider=self.provider,
            threads=self.threads,
        )

    def _gates(self, figures: dict[str, Figures]) -> tuple[Gate, ...]:
        """Accuracy, or without labels agreement, of what was written, on the calibration part."""
        original = figures["original"]
        gates = []
        for role in ("hardened", "detector"):
            if role not in figures:
                continue
            now = figures[role]
            if original.accuracy is not None and now.accuracy is not None:
                fall = original.accuracy - now.accuracy
                name, message = f"{role}_accuracy_drop", "on the calibration part"
            else:
                assert now.agreement is not None
                fall = 1 - now.agreement
                name, message = f"{role}_changed_decisions", "on the calibration part, no labels"
            gates.append(at_most(name, fall, self.max_accuracy_drop, message=message))
        return tuple(gates)

    def _clean_set(
        self,
        samples: Samples,
        fit: Samples,
        calibration: Samples,
        logits: np.ndarray[Any, Any],
    ) -> CleanSet:
        labels = _decisions(logits) if samples.y is None else samples.y
        return CleanSet(
            source=samples.source,
            samples=len(samples),
            fit=len(fit),
            calibration=len(calibration),
            classes=len(np.unique(labels)),
            class_names=samples.class_names,
            has_labels=samples.y is not None,
            preprocessing=self.preprocessing,
        )

    def _detector_part(self, written: Written) -> DetectorPart | None:
        if written.null is None or written.leave_one_out is None:
            return None
        return DetectorPart(
            false_positive_rate_requested=self.false_positive_rate,
            false_positive_rate_measured=written.leave_one_out,
            measured_on="leave-one-out",
            null=written.null.kind,
            null_samples=len(written.null.scores),
            threshold_score=written.null.threshold,
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(Progress(name, 0, 1, {}))
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
        if self.progress is not None:
            self.progress(Progress(name, 1, 1, {}))


def torch_device(name: str) -> torch.device:
    """The torch device of an option.

    Raises:
        OptionError: Not a device name.
        RuntimeMissingError: CUDA was asked for and torch has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise RuntimeMissingError(
                f"device {name!r} was asked for and torch finds {count} CUDA devices; install a "
                "CUDA build of torch, or use --device cpu"
            )
    return device


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Threads, denormals and determinism for one job, put back as they were after it."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    # Activations near zero would otherwise become denormal and an order of magnitude slower.
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(before)


def _check_original(model: OnnxModel) -> None:
    """What we write is checked in full, so what we start from must pass the same check."""
    try:
        onnx.checker.check_model(model.proto, full_check=True)
    except Exception as error:  # checker and shape inference raise many kinds
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"{model.label}: fails onnx.checker's full check ({text})") from None


def _decisions(logits: np.ndarray[Any, Any]) -> IntArray:
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def _figures(written: Written, calibration: Samples) -> dict[str, Figures]:
    before = Answers(written.answers["original"])
    figures = {"original": original_figures(before, calibration, None)}
    for role in ("hardened", "detector"):
        if role in written.answers:
            after: Predictions = written.answers[role]
            figures[role] = defended_figures(before, Answers(after), calibration, None)
    return figures
