"""The steps of a scan: read, check parity, look, judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from mmbm_onnx import __version__
from mmbm_onnx.data import split
from mmbm_onnx.data.layout import image_input, takes_images
from mmbm_onnx.errors import DataError, ModelError, OptionError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import check_parity
from mmbm_onnx.execution.points import Points
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.pipeline.clock import Clock
from mmbm_onnx.pipeline.devices import torch_settings
from mmbm_onnx.pipeline.examination import (
    PARITY_SAMPLES,
    check_not_quantized,
    clean_set,
    examine,
    valid_graph,
)
from mmbm_onnx.pipeline.scan_result import ScanResult
from mmbm_onnx.report.pieces import CleanSet, Execution, Tool
from mmbm_onnx.report.scan_report import (
    ScanFinding,
    ScannedClass,
    ScannedPattern,
    ScanTest,
    scan_report,
)
from mmbm_onnx.runtime.providers import resolve_provider
from mmbm_onnx.scanning.judgement import FEWEST_CLASSES, Judgement, judge
from mmbm_onnx.scanning.look import Recovered, geometries, look
from mmbm_onnx.scanning.noise import largest_margins
from mmbm_onnx.scanning.settings import ScanSettings
from mmbm_onnx.types import FloatArray, IntArray, Interface, Samples


@dataclass(frozen=True)
class Scanning:
    """One scan. Fields are the arguments of ``scan``.

    Attributes:
        input_range: Of valid inputs; None for that of the clean samples, or 0 to 1 without any.
    """

    settings: ScanSettings
    device: torch.device
    provider: str | None
    threads: int | None
    seed: int
    input_range: tuple[float, float] | None = None

    def run(
        self,
        model: OnnxModel,
        read: Callable[[Interface], Samples] | None,
        clock: Clock,
        *,
        input_name: str | None,
        logits_name: str | None,
    ) -> ScanResult:
        """Do it; see ``scan``.

        Args:
            model: The model.
            read: Reads the clean set for its interface; None without one.
            clock: Times the phases.
            input_name, logits_name: When they cannot be found.

        Raises:
            MmbmError: As ``scan``.
        """
        with clock.phase("read"):
            proto, _ = valid_graph(model)
            interface = find_interface(
                proto, input_name=input_name, logits_name=logits_name, label=model.label
            )
            check_not_quantized(model, proto, interface, "scan the model as it was before")
            if interface.classes < FEWEST_CLASSES:
                raise ModelError(
                    f"{model.label}: has {interface.classes} classes; a scan holds each class "
                    f"against the others and needs {FEWEST_CLASSES} or more"
                )
            clean = None if read is None else self._clean(model, proto, interface, read(interface))
        like = _blank(interface, self.input_range, self.seed) if clean is None else clean.fit
        settings = self.settings.for_inputs(like.x[0].size)
        with torch_settings(self.threads):
            with clock.phase("parity"):
                classifier = Classifier(proto, interface, (), self.device)
                parity = check_parity(
                    classifier, proto, like.x[:PARITY_SAMPLES], provider=self.provider
                )
            points = classifier.points(torch.from_numpy(like.x), settings.batch_size)
            limits = self._limits(points, like)
            recovered, decisions, margins = self._look(
                classifier, interface, points, clean, settings, limits, clock
            )
        judgement = judge(recovered, margins)
        names = () if clean is None else clean.fit.class_names
        report = scan_report(
            tool=Tool(__version__),
            model=model,
            interface=interface,
            clean_set=None if clean is None else clean.told,
            settings=settings.describe(),
            classes=_classes(recovered, margins, judgement, names),
            tests=[
                ScanTest(test.name, test.highest, test.threshold, test.decides)
                for test in judgement.tests
            ],
            margin_p_value=judgement.margin_p_value,
            findings=[
                ScanFinding(
                    found.target,
                    _name(names, found.target),
                    found.test,
                    found.score,
                    found.threshold,
                )
                for found in judgement.findings
            ],
            execution=self._execution(clean),
            parity=(parity.max_relative_difference, parity.tolerance),
            seed=self.seed,
            seconds=clock.seconds,
            warnings=() if clean is None else clean.warnings,
        )
        return ScanResult(
            report=report,
            recovered=recovered,
            held=None if clean is None else clean.held,
            decisions=decisions,
            limits=limits,
            interface=interface,
        )

    def _clean(
        self, model: OnnxModel, proto: onnx.ModelProto, interface: Interface, samples: Samples
    ) -> _Clean:
        examined = examine(
            model, proto, interface, samples, provider=self.provider, threads=self.threads
        )
        fit, held = split(samples, fraction=0.5, seed=self.seed, labels=examined.decided)
        told = clean_set(samples, len(fit), len(held), examined.decided)
        return _Clean(fit, held, told, examined.providers, examined.warnings)

    def _limits(self, points: Points, like: Samples) -> tuple[float, float]:
        """Smallest and largest value of valid inputs."""
        found = float(points.values.min()), float(points.values.max())
        low, high = self.input_range or found
        if not low < high:
            raise DataError(f"{like.source}: all values are {low}; nothing can be added to them")
        if low > found[0] or high < found[1]:
            raise OptionError(
                f"{like.source}: values from {found[0]:g} to {found[1]:g} are not within the range "
                f"{low:g} to {high:g}"
            )
        return low, high

    def _look(
        self,
        classifier: Classifier,
        interface: Interface,
        points: Points,
        clean: _Clean | None,
        settings: ScanSettings,
        limits: tuple[float, float],
        clock: Clock,
    ) -> tuple[tuple[Recovered, ...], IntArray | None, FloatArray]:
        generator = torch.Generator().manual_seed(self.seed)
        size = settings.batch_size
        low, high = limits
        recovered: list[Recovered] = []
        decided = None
        with clock.phase("patterns", told=False):
            if clean is not None:
                held = classifier.points(torch.from_numpy(clean.held.x), size)
                decided = _decisions(classifier, held, size)
                channels, along = _axes(interface, points)
                recovered = look(
                    classifier,
                    points,
                    _decisions(classifier, points, size),
                    (held, decided),
                    interface.classes,
                    geometries(
                        tuple(points.values.shape[1:]),
                        high - low,
                        channels=channels,
                        along=along,
                    ),
                    settings,
                    generator,
                    low=low,
                    high=high,
                    progress=clock.teller("patterns"),
                )
        with clock.phase("noise", told=False):
            margins = largest_margins(
                classifier,
                points,
                interface.classes,
                settings,
                generator,
                low=low,
                high=high,
                progress=clock.teller("noise"),
            )
        told = None if decided is None else decided.numpy()
        return tuple(recovered), told, margins.double().numpy()

    def _execution(self, clean: _Clean | None) -> Execution:
        ran = (resolve_provider(self.provider),) if clean is None else clean.providers
        return Execution(str(self.device), self.provider, ran, self.threads)


@dataclass(frozen=True, slots=True)
class _Clean:
    fit: Samples
    held: Samples
    told: CleanSet
    providers: tuple[str, ...]
    warnings: tuple[str, ...]


def _decisions(classifier: Classifier, points: Points, size: int) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([classifier.logits(part).argmax(1).cpu() for part in points.split(size)])


def _classes(
    recovered: Sequence[Recovered],
    margins: FloatArray,
    judgement: Judgement,
    names: tuple[str, ...],
) -> list[ScannedClass]:
    scores = {test.name: test.scores for test in judgement.tests}
    patterns: dict[int, dict[str, ScannedPattern | None]] = {
        index: dict.fromkeys(one.norm for one in recovered) for index in range(len(margins))
    }
    for one in recovered:
        patterns[one.target][one.norm] = ScannedPattern(
            one.size, one.flipped_share, _known(scores[one.norm][one.target])
        )
    return [
        ScannedClass(
            index,
            _name(names, index),
            _known(judgement.scores[index]),
            float(margin),
            patterns[index],
        )
        for index, margin in enumerate(margins)
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _name(names: tuple[str, ...], index: int) -> str | None:
    return names[index] if index < len(names) else None


def _axes(interface: Interface, points: Points) -> tuple[int | None, tuple[int, ...]]:
    """Axis of a point's channels, and those that waves can run along."""
    rank = points.values.ndim - 1
    if interface.start is not None:  # a vector per token
        return (rank - 1 if rank > 1 else None), ()
    if takes_images(interface):
        try:
            layout = image_input(interface).layout
        except DataError:  # it could be either
            layout = "nchw"
        channels = {"nchw": 0, "nhwc": 2, "nhw": None}[layout]
    else:
        channels = 0 if rank > 1 else None
    if rank == 1:
        return None, ()
    return channels, tuple(axis for axis in range(rank) if axis != channels)


def _blank(interface: Interface, limits: tuple[float, float] | None, seed: int) -> Samples:
    """Numbers drawn from the range of valid inputs, in the place of clean samples."""
    shape = interface.input_shape[1:]
    if interface.takes_integers:
        raise OptionError(
            f"input {interface.input!r} takes integers, which noise does not look like; "
            "give clean samples (--clean-dir)"
        )
    fixed = [length for length in shape if length is not None]
    if len(fixed) < len(shape):
        raise OptionError(
            f"input {interface.input!r} has no fixed shape, so noise cannot be made for it; "
            "give clean samples (--clean-dir)"
        )
    low, high = limits or (0.0, 1.0)
    drawn = np.random.default_rng(seed).uniform(low, high, (PARITY_SAMPLES, *fixed))
    return Samples(drawn.astype(interface.input_dtype), source="noise")
