"""The steps of a hardening after its preparation: check parity, learn, rewrite, pair, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from mmbm_onnx import __version__
from mmbm_onnx.errors import NothingToHardenError, OptionError
from mmbm_onnx.evaluation.details import inputs_of, most_unusual
from mmbm_onnx.evaluation.figures import Answers, Figures, defended_figures, original_figures
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.evaluation.latency import Latency, measure_latency
from mmbm_onnx.evaluation.quality import Limits, quality_gates
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import check_parity
from mmbm_onnx.graph.flow import flow_between
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.learning.checkpoint import Checkpoint, fingerprint
from mmbm_onnx.learning.fit import Learned, learn_bounds
from mmbm_onnx.learning.settings import Settings
from mmbm_onnx.learning.statistics import reached_sites
from mmbm_onnx.pipeline.bounding import Bounding
from mmbm_onnx.pipeline.clock import Clock
from mmbm_onnx.pipeline.devices import torch_settings
from mmbm_onnx.pipeline.examination import PARITY_SAMPLES
from mmbm_onnx.pipeline.pairing import Paired, no_stages
from mmbm_onnx.pipeline.preparation import Prepared
from mmbm_onnx.pipeline.result import HardenResult
from mmbm_onnx.pipeline.shadowing import Shadowing
from mmbm_onnx.pipeline.written import Written, rehearse, write_graphs
from mmbm_onnx.report.html.material import Material, SiteDetail
from mmbm_onnx.report.json_report import harden_report
from mmbm_onnx.report.pieces import (
    DetectorPart,
    Execution,
    Folding,
    Method,
    Parity,
    Tool,
    summarize_site,
)
from mmbm_onnx.rewriting.null import p_values
from mmbm_onnx.types import (
    Choice,
    Granularity,
    Interface,
    Samples,
    ShadowChoice,
    Site,
    Uncovered,
)

_SMALLEST_BATCH = 8  # that learning is tried with where memory is short
_NO_FOLDING = "no bounds are to be folded into weights"
_UNREACHED = "lies in a branch that no clean sample takes"


@dataclass(frozen=True)
class Pipeline:
    """One hardening. Fields are the arguments of ``harden``; ``run`` does it."""

    settings: Settings
    granularity: Granularity
    wants_detector: bool
    false_positive_rate: float
    max_accuracy_drop: float
    device: torch.device
    provider: str | None
    threads: int | None
    seed: int
    fold: Choice = "auto"
    cascade: Choice = "auto"
    shadow: ShadowChoice = "auto"
    checkpoint: Path | None = None
    checkpoint_every: float = 60.0
    resume: bool = False

    def run(self, prepared: Prepared, clock: Clock) -> HardenResult:
        """Do it; see ``harden``.

        Args:
            prepared: Model and samples.
            clock: Times the phases.
        """
        model, proto, interface = prepared.model, prepared.proto, prepared.interface
        fit, calibration = prepared.fit, prepared.calibration
        with torch_settings(self.threads):
            with clock.phase("parity"):
                classifier = Classifier(proto, interface, prepared.report.sites, self.device)
                parity = check_parity(
                    classifier, proto, fit.x[:PARITY_SAMPLES], provider=self.provider
                )
            with clock.phase("learn", told=False):
                sites, unreached = self._reached(classifier, fit, prepared.report.sites)
                bounding = Bounding(proto, interface, sites, self.fold, self.provider)
                shadowing = Shadowing(self.shadow, proto, interface, sites, self.provider)
                if self.fold == "never" and self.shadow == "auto":
                    shadowing = replace(shadowing, unfit=_NO_FOLDING)
                self._check_cascade(prepared)
                rehearse(
                    bounding,
                    self.granularity,
                    fit.x[:PARITY_SAMPLES],
                    detector=self.wants_detector,
                    shadowing=shadowing,
                )
                learned, settings = self._learn(classifier, prepared, sites, clock)
            with clock.phase("write"):
                written = write_graphs(
                    bounding=bounding,
                    learned=learned,
                    classifier=classifier,
                    fit=fit,
                    calibration=calibration,
                    false_positive_rate=(self.false_positive_rate if self.wants_detector else None),
                    score=self.settings.score,
                    seed=self.seed,
                    stamps=self._stamps(model),
                    provider=self.provider,
                    threads=self.threads,
                    cascade=self.cascade,
                    shadowing=shadowing,
                )
            del classifier  # and its view of the weights
            with clock.phase("evaluate"):
                paired = written.paired
                answers = {role: Answers(given) for role, given in written.answers.items()}
                if paired is not None:
                    answers["detector"] = Answers(paired.answers)
                figures = _figures(answers, calibration)
                latency = self._latency(proto, written, interface, calibration)
        gates = self._gates(figures, answers)
        warnings = (*prepared.warnings, *learned.warnings, *written.bounded.warnings)
        if paired is not None:
            warnings += paired.warnings
        return HardenResult(
            hardened=written.hardened,
            detector=None if paired is None else paired.detector,
            bounds=learned.bounds,
            report=harden_report(
                tool=Tool(__version__),
                model=model,
                interface=interface,
                clean_set=prepared.clean_set,
                method=Method(settings.method, self.granularity, settings.describe()),
                sites=[
                    summarize_site(
                        site,
                        learned.bounds[site.tensor],
                        clean_max=float(written.clean_max[site.tensor].max()),
                        share_above=written.above[site.tensor].share,
                        folded=site.tensor in written.bounded.folded,
                    )
                    for site in sites
                ],
                uncovered=(*prepared.report.uncovered, *unreached),
                figures=figures,
                detector=None if paired is None else self._detector_part(paired),
                latency=latency,
                execution=Execution(
                    str(self.device), self.provider, prepared.providers, self.threads
                ),
                folding=Folding(
                    self.fold,
                    written.bounded.depthwise,
                    written.bounded.obstacle or None,
                ),
                parity=Parity(
                    parity.max_relative_difference, written.bounded.difference, parity.tolerance
                ),
                seed=self.seed,
                seconds=clock.seconds,
                gates=gates,
                warnings=warnings,
            ),
            gates=gates,
            warnings=warnings,
            checkpoint=self.checkpoint,
            material=self._material(prepared, sites, unreached, learned, written),
        )

    def _material(
        self,
        prepared: Prepared,
        sites: Sequence[Site],
        unreached: Sequence[Uncovered],
        learned: Learned,
        written: Written,
    ) -> Material:
        """What a page draws besides the report's figures."""
        proto, interface, calibration = prepared.proto, prepared.interface, prepared.calibration
        names = [site.tensor for site in sites]
        names += [other.tensor for other in (*prepared.report.uncovered, *unreached)]
        paired = written.paired
        odd = None
        if paired is not None:
            original = written.answers["original"].classes
            # Answers are put together from a probe, whose p-values are of no null.
            fitting = p_values(paired.null, paired.answers.score)
            odd = most_unusual(calibration, original, paired.answers, fitting)
        return Material(
            inputs=inputs_of(calibration, interface),
            flow=flow_between(proto.graph, interface.input, interface.logits, names),
            sites={
                site.tensor: SiteDetail(
                    bounds=learned.bounds[site.tensor].reshape(-1),
                    highest=written.clean_max[site.tensor].reshape(-1),
                    touched=written.above[site.tensor].shares.numpy(),
                )
                for site in sites
            },
            null=None if paired is None else paired.null,
            odd=odd,
        )

    def _check_cascade(self, prepared: Prepared) -> None:
        if self.cascade != "always" or not self.wants_detector:
            return
        model = prepared.proto, prepared.interface
        if refused := no_stages(*model, self.settings.score, self.false_positive_rate):
            raise OptionError(f"no detector in two stages: {refused}; use --cascade auto")

    def _learn(
        self, classifier: Classifier, prepared: Prepared, sites: Sequence[Site], clock: Clock
    ) -> tuple[Learned, Settings]:
        """The bounds, and the settings they were learned with: where memory does not suffice,
        those with a smaller batch.

        Raises:
            OptionError: It suffices for none.
        """
        settings = self.settings
        notes: tuple[str, ...] = ()
        while True:
            try:
                learned = learn_bounds(
                    classifier,
                    prepared.fit,
                    sites,
                    settings,
                    calibration=prepared.calibration,
                    granularity=self.granularity,
                    seed=self.seed,
                    progress=clock.progress,
                    checkpoint=self._checkpoint(prepared),
                )
            except (torch.OutOfMemoryError, MemoryError):
                pass  # and out of the frames that hold tensors
            else:
                return replace(learned, warnings=(*notes, *learned.warnings)), settings
            if settings.batch_size <= _SMALLEST_BATCH:
                raise OptionError(
                    f"{self.device} has too little memory to learn with a batch of "
                    f"{settings.batch_size}; free some, or choose another device"
                )
            smaller = max(_SMALLEST_BATCH, settings.batch_size // 2)
            settings = replace(settings, batch_size=smaller)
            notes = (f"memory did not suffice: learned with batches of {smaller} samples",)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _checkpoint(self, prepared: Prepared) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        parts = [
            __version__,
            torch.__version__,
            prepared.model.sha256,
            [prepared.interface.input, prepared.interface.output, prepared.interface.logits],
            prepared.interface.head,
            [site.tensor for site in prepared.report.sites],
            self.settings.describe(),
            self.granularity,
            self.seed,
            self.threads,
            self.device.type,
        ]
        arrays = [part for s in (prepared.fit, prepared.calibration) for part in (s.x, s.y)]
        return Checkpoint(
            self.checkpoint, fingerprint(parts, arrays), self.checkpoint_every, self.resume
        )

    def _reached(
        self, classifier: Classifier, fit: Samples, sites: Sequence[Site]
    ) -> tuple[tuple[Site, ...], list[Uncovered]]:
        """Sites that clean samples reach, and the others with the reason.

        Raises:
            NothingToHardenError: They reach none.
        """
        x = torch.from_numpy(fit.x).to(classifier.device, classifier.dtype)
        reached = reached_sites(classifier, x, sites, self.settings.batch_size)
        if not reached:
            raise NothingToHardenError(
                "no clean sample takes a branch with an activation that takes a bound; "
                "nothing to harden"
            )
        left = [site for site in sites if site not in reached]
        return reached, [Uncovered(site.tensor, site.kind, _UNREACHED) for site in left]

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
        if written.paired is not None:
            graphs["detector"] = written.paired.detector
        return measure_latency(
            graphs,
            interface,
            x=calibration.x,
            seed=self.seed,
            provider=self.provider,
            threads=self.threads,
        )

    def _gates(self, figures: dict[str, Figures], answers: dict[str, Answers]) -> tuple[Gate, ...]:
        """Those of ``verify``'s gates that ask for quality, of the calibration part's answers."""
        limits = Limits(max_accuracy_drop=self.max_accuracy_drop)
        gates: list[Gate] = []
        for role in ("hardened", "detector"):
            if role in figures:
                both = answers["original"], answers[role]
                gates += quality_gates(role, figures["original"], figures[role], both, limits)
        return tuple(gates)

    def _detector_part(self, paired: Paired) -> DetectorPart:
        return DetectorPart(
            false_positive_rate_requested=self.false_positive_rate,
            false_positive_rate_measured=paired.leave_one_out,
            measured_on="leave-one-out",
            score=paired.score,
            evidence=paired.read if paired.score == "evidence" else None,
            second_stage=paired.odd,
            shadow=paired.shadow or "float",
            shadow_reason=paired.no_shadow or None,
            null=paired.null.kind,
            null_samples=len(paired.null.scores),
            threshold_score=paired.null.threshold,
        )


def _figures(answers: dict[str, Answers], calibration: Samples) -> dict[str, Figures]:
    before = answers["original"]
    figures = {"original": original_figures(before, calibration, None)}
    for role in ("hardened", "detector"):
        if role in answers:
            figures[role] = defended_figures(before, answers[role], calibration, None)
    return figures
