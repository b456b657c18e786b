"""The detector graph: written for a score, and compared with ONNX Runtime before anyone sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import ModelError, RewriteError
from mmbm_onnx.evaluation.compare import rows_that_differ
from mmbm_onnx.evaluation.defence import FALSE_POSITIVE_RATE
from mmbm_onnx.evaluation.predictions import Predictions, Verdicts
from mmbm_onnx.execution.parity import HALF_TOLERANCE
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.walk import ancestors, standard_opset
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.scoring import Scoring, score_clean
from mmbm_onnx.pipeline.shadowing import Shadowed, Shadowing
from mmbm_onnx.rewriting.cascade import OPSET, build_cascade
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.folding.record import FOLDED
from mmbm_onnx.rewriting.null import Null, fit_null, leave_one_out_rate
from mmbm_onnx.rewriting.shadow.branch import KIND as SHADOW_KIND
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.types import (
    DETECTOR_OUTPUTS,
    Choice,
    Interface,
    Samples,
    ShadowKind,
    Site,
    Source,
)

_NOISE_SAMPLES = 64
# Share of clean samples that go on to the bounded branch: at least, and of the rate to be flagged.
_ODD, _ODD_OF_RATE = 0.05, 5
_TOLERANCE = 1e-3  # of the largest score


@dataclass(frozen=True, slots=True)
class Paired:
    """A detector graph and what belongs to it.

    Attributes:
        detector: The graph.
        null: Its null.
        score: What it flags by: evidence only where there is some.
        leave_one_out: Share of the null's samples flagged, each against the null of the others.
        answers: Its answers on the calibration part, to samples that evidence was not fitted on.
        warnings: One line each.
        read: Branch that evidence is read in.
        odd: Share of clean samples that go on to the bounded branch; None where all do.
        shadow: What the bounded branch is, if it is no copy of the original's nodes.
        no_shadow: Why it is a copy where it might have been something else; or nothing.
    """

    detector: onnx.ModelProto
    null: Null
    score: Score
    leave_one_out: float
    answers: Verdicts
    warnings: tuple[str, ...]
    read: Source = "bounded"
    odd: float | None = None
    shadow: ShadowKind | None = None
    no_shadow: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """A kind of detector: what it scores by, where evidence is read, the share of clean samples
    that go on to the bounded branch, or None for all, and that branch, or None for a copy."""

    score: Score
    read: Source = "bounded"
    odd: float | None = None
    shadow: Shadow | None = None

    @property
    def takes_shadow(self) -> bool:
        """Whether nothing is read inside the bounded branch."""
        return self.score == "margin" or self.read == "original"

    @property
    def instead(self) -> str:
        """What is done, where a better form failed."""
        if self.score == "margin":
            return "the detector goes by the margin difference alone"
        if self.read == "bounded":
            return "evidence is read in the bounded branch"
        return "all samples go through the bounded branch"


class ScoreError(RewriteError):
    """The graph does not compute the score that its null is of."""


@dataclass(frozen=True)
class Pairing:
    """What a detector graph is made of.

    Attributes:
        run: ONNX Runtime.
        proto: The original.
        interface: How it is fed and read.
        sites: Where bounds are.
        learned: The bounds.
        fit: The part they were learned on.
        calibration: The part they are judged on.
        seed: Of choices among samples.
        stamps: Provenance.
        cascade: Whether the bounded branch runs only for samples that look odd: where that can be
            done, ``"always"`` or it is an error, or ``"never"``.
        shadowing: What the bounded branch is; None for a copy of the original's nodes.
    """

    run: Runner
    proto: onnx.ModelProto
    interface: Interface
    sites: Sequence[Site]
    learned: Learned
    fit: Samples
    calibration: Samples
    seed: int
    stamps: Mapping[str, str]
    cascade: Choice = "auto"
    shadowing: Shadowing | None = None

    def pair(
        self,
        original: Predictions,
        hardened: Predictions,
        false_positive_rate: float,
        score: Score,
    ) -> Paired:
        """Write the detector; by the margin difference where evidence cannot be trusted.

        Args:
            original, hardened: Their answers on the calibration part.
            false_positive_rate: What is asked for, in (0, 1).
            score: What to flag by.

        Raises:
            RewriteError: The graph is invalid, computes another score than its null is of, or
                changes an output that it does not flag.
        """
        made = Shadowed()
        if self.shadowing is not None:
            made = self.shadowing.make(
                self.learned.bounds, self.run, self.fit, self.calibration, hardened, self.seed
            )
        told: list[str] = list(made.warnings)
        refused = made.reason
        forms = self._forms(score, false_positive_rate, made.shadow)
        for form, after in zip(forms, [*forms[1:], None], strict=True):
            bounded = hardened if form.shadow is None else made.answers
            assert bounded is not None
            try:
                found = self._paired(form, (original, bounded), false_positive_rate, *told)
            except (RewriteError, ModelError) as error:
                if after is None:
                    raise
                if form.shadow is not None and not self._asked:
                    refused = str(error)  # the same form with a copy is next
                else:
                    told = [*made.warnings, f"{after.instead}: {error}"]
            else:
                return replace(found, no_shadow="" if form.shadow is not None else refused)
        raise AssertionError("the last form returns or raises")

    @property
    def _asked(self) -> bool:
        return self.shadowing is not None and self.shadowing.asked

    def _forms(
        self, score: Score, false_positive_rate: float, shadow: Shadow | None
    ) -> list[_Form]:
        """What to try, the best first: few samples through the bounded branch, and evidence that is
        read where the original runs. (Reading there may change how a runtime fuses operators, and
        with it bits of the answers.) Each with the shadow, if there is one, before the copy, which
        is not tried where a shadow is asked for."""
        odd = max(_ODD, _ODD_OF_RATE * false_positive_rate)
        staged = _Form("evidence", "original", odd)
        forms = [_Form("evidence", "original"), _Form("evidence", "bounded"), _Form("margin")]
        if score == "margin":
            forms = [_Form("margin")]
        elif self.cascade == "always":
            forms = [staged]
        elif self.cascade != "never" and not no_stages(
            self.proto, self.interface, "evidence", false_positive_rate
        ):
            forms = [staged, *forms]
        if shadow is None:
            return forms
        found = []
        for form in forms:
            if form.takes_shadow:
                found.append(replace(form, shadow=shadow))
            if not self._asked:
                found.append(form)
        return found

    def _paired(
        self,
        form: _Form,
        answers: tuple[Predictions, Predictions],
        false_positive_rate: float,
        *warnings: str,
    ) -> Paired:
        scoring = score_clean(
            self.run,
            self.proto,
            self.interface,
            self.sites,
            self.learned,
            self.fit,
            self.calibration,
            kind=form.score,
            read=form.read,
            seed=self.seed,
            odd=form.odd,
            shadow=form.shadow,
        )
        if self.cascade == "always" and scoring.gate is None:
            raise RewriteError(f"two stages need evidence: {'; '.join(scoring.warnings)}")
        steady = scoring.evidence is not None
        null = fit_null(scoring.scores, false_positive_rate, steady=steady)
        told = [*warnings, *scoring.warnings, *self._left_alone()]
        if null.kind == "gaussian":
            told.append(
                f"{len(null.scores)} clean scores are too few for a distribution-free threshold "
                f"at a false-positive rate of {false_positive_rate:g}; a Gaussian tail is used"
            )
        return Paired(
            detector=self._write(null, scoring, form),
            null=null,
            score="margin" if scoring.evidence is None else "evidence",
            leave_one_out=leave_one_out_rate(
                scoring.scores, false_positive_rate, steady=steady, counted=scoring.goes_on
            ),
            answers=scoring.verdicts(null, *answers),
            warnings=tuple(told),
            read=form.read,
            odd=form.odd if scoring.gate is not None else None,
            shadow=None if form.shadow is None else form.shadow.kind,
        )

    def _left_alone(self) -> list[str]:
        """A warning for each output that bounds change and the detector does not correct."""
        graph = self.proto.graph
        found = []
        for output in graph.output:
            behind = ancestors(graph, [output.name])
            bounded = any(site.tensor in behind for site in self.sites)
            if bounded and self.interface.logits not in behind:
                found.append(
                    f"output {output.name!r} does not depend on the logits "
                    f"{self.interface.logits!r}: the detector never corrects it"
                )
        return found

    def _write(self, null: Null, scoring: Scoring, form: _Form) -> onnx.ModelProto:
        """The first of the graphs that changes no bit of an unflagged output."""
        clean = self.calibration.x
        x = np.concatenate([clean, self.fit.x, _noise(clean)])
        original = self.run.answers(self.proto, x).outputs
        stamps = {
            **self.stamps,
            "graph": "detector",
            FALSE_POSITIVE_RATE: repr(null.false_positive_rate),
        }
        if form.shadow is not None:
            stamps |= {SHADOW_KIND: form.shadow.kind, FOLDED: form.shadow.record.write()}
        for detector in self._graphs(null, scoring, form):
            stamp(detector, stamps)
            check_written(detector)
            check_signature(self.proto, detector, DETECTOR_OUTPUTS)
            self._check_shadow(detector, form.shadow)
            verdicts = self.run.verdicts(detector, x)
            shared = {name: verdicts.outputs[name] for name in original}
            differing = rows_that_differ(original, shared) & ~verdicts.flagged
            if not differing.any():
                shadow = form.shadow
                half = has_halves(self.proto) or (shadow is not None and shadow.kind == "half")
                _check_scores(verdicts.score[: len(clean)], scoring, half=half)
                return detector
        raise RewriteError(
            f"the detector changes {int(differing.sum())} of {len(x)} outputs that it does not "
            "flag; nothing is written"
        )

    def _check_shadow(self, detector: onnx.ModelProto, shadow: Shadow | None) -> None:
        if shadow is None or self.shadowing is None:
            return
        if found := self.shadowing.difference(detector, shadow):
            raise RewriteError(f"the {shadow.kind} branch: {found}")

    def _graphs(self, null: Null, scoring: Scoring, form: _Form) -> Iterator[onnx.ModelProto]:
        """In two stages; or in one, with a shared prefix and without one."""
        shadow = form.shadow
        parts = self.proto, self.interface, self.sites, self.learned.bounds, null
        evidence = scoring.evidence
        if evidence is not None and scoring.gate is not None:
            yield build_cascade(*parts, evidence, scoring.gate, shadow)
            return
        for share_prefix in (True, False) if shadow is None else (True,):
            yield build_detector(
                *parts, evidence, read=form.read, share_prefix=share_prefix, shadow=shadow
            )


def no_stages(
    proto: onnx.ModelProto, interface: Interface, score: Score, false_positive_rate: float
) -> str:
    """Why a detector of this model cannot work in two stages, or nothing."""
    opset = standard_opset(proto.opset_import) or 0
    if score == "margin":
        return "this method scores by the margin difference alone"
    if interface.batch is not None:
        return f"samples cannot be taken out of the model's fixed batch of {interface.batch}"
    if opset < OPSET:
        return f"it takes opset {OPSET}, the model has {opset}"
    if _ODD_OF_RATE * false_positive_rate >= 1:
        return f"at a false-positive rate of {false_positive_rate:g} all samples would go on"
    return ""


def _check_scores(found: npt.NDArray[Any], scoring: Scoring, *, half: bool) -> None:
    expected, certain = scoring.expected, scoring.certain
    tolerance = HALF_TOLERANCE if half else _TOLERANCE
    scale = float(np.abs(expected).max(initial=1.0))
    gaps = np.abs(found - expected)
    difference = float((gaps if certain is None else gaps[certain]).max(initial=0.0))
    if not difference <= tolerance * scale:
        raise ScoreError(
            f"the graph's scores differ by {difference:.1e} in ONNX Runtime from those that the "
            "threshold is set by"
        )


def _noise(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (_NOISE_SAMPLES, *x.shape[1:])
    return rng.uniform(float(x.min()), float(x.max()), shape).astype(x.dtype)
