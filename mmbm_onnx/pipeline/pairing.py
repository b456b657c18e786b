"""The detector graph: written for a score, and compared with ONNX Runtime before anyone sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.compare import rows_that_differ
from mmbm_onnx.evaluation.defence import FALSE_POSITIVE_RATE
from mmbm_onnx.evaluation.predictions import Predictions, Verdicts
from mmbm_onnx.execution.parity import HALF_TOLERANCE
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.walk import ancestors
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.scoring import Scoring, score_clean
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.null import Null, fit_null, leave_one_out_rate
from mmbm_onnx.types import DETECTOR_OUTPUTS, Interface, Samples, Site

_NOISE_SAMPLES = 64
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
    """

    detector: onnx.ModelProto
    null: Null
    score: Score
    leave_one_out: float
    answers: Verdicts
    warnings: tuple[str, ...]


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
        answers = original, hardened
        if score == "margin":
            return self._paired("margin", answers, false_positive_rate)
        try:
            return self._paired("evidence", answers, false_positive_rate)
        except ScoreError as error:
            reason = f"the detector goes by the margin difference alone: {error}"
        return self._paired("margin", answers, false_positive_rate, reason)

    def _paired(
        self,
        kind: Score,
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
            kind=kind,
            seed=self.seed,
        )
        steady = scoring.evidence is not None
        null = fit_null(scoring.scores, false_positive_rate, steady=steady)
        told = [*warnings, *scoring.warnings, *self._left_alone()]
        if null.kind == "gaussian":
            told.append(
                f"{len(null.scores)} clean scores are too few for a distribution-free threshold "
                f"at a false-positive rate of {false_positive_rate:g}; a Gaussian tail is used"
            )
        return Paired(
            detector=self._write(null, scoring),
            null=null,
            score="margin" if scoring.evidence is None else "evidence",
            leave_one_out=leave_one_out_rate(scoring.scores, false_positive_rate, steady=steady),
            answers=scoring.verdicts(null, *answers),
            warnings=tuple(told),
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

    def _write(self, null: Null, scoring: Scoring) -> onnx.ModelProto:
        """The graph, with a shared prefix unless that changes a bit of an unflagged output."""
        clean = self.calibration.x
        x = np.concatenate([clean, self.fit.x, _noise(clean)])
        original = self.run.answers(self.proto, x).outputs
        for share_prefix in (True, False):
            detector = build_detector(
                self.proto,
                self.interface,
                self.sites,
                self.learned.bounds,
                null,
                scoring.evidence,
                share_prefix=share_prefix,
            )
            rate = repr(null.false_positive_rate)
            stamp(detector, {**self.stamps, "graph": "detector", FALSE_POSITIVE_RATE: rate})
            check_written(detector)
            check_signature(self.proto, detector, DETECTOR_OUTPUTS)
            verdicts = self.run.verdicts(detector, x)
            shared = {name: verdicts.outputs[name] for name in original}
            differing = rows_that_differ(original, shared) & ~verdicts.flagged
            if not differing.any():
                half = has_halves(self.proto)
                _check_scores(verdicts.score[: len(clean)], scoring.expected, half=half)
                return detector
        raise RewriteError(
            f"the detector changes {int(differing.sum())} of {len(x)} outputs that it does not "
            "flag; nothing is written"
        )


def _check_scores(
    found: npt.NDArray[Any], expected: npt.NDArray[np.float32], *, half: bool
) -> None:
    tolerance = HALF_TOLERANCE if half else _TOLERANCE
    scale = float(np.abs(expected).max(initial=1.0))
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance * scale:
        raise ScoreError(
            f"the graph's scores differ by {difference:.1e} in ONNX Runtime from those that the "
            "threshold is set by"
        )


def _noise(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (_NOISE_SAMPLES, *x.shape[1:])
    return rng.uniform(float(x.min()), float(x.max()), shape).astype(x.dtype)
