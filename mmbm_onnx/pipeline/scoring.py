"""What the detector scores by, and how clean samples score: the makings of its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.evaluation.predictions import Predictions, Verdicts
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.rewriting.detector import build_probe
from mmbm_onnx.rewriting.evidence import FEWEST, Evidence, fit_evidence
from mmbm_onnx.rewriting.null import Null, flags
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.types import BoolArray, IntArray, Interface, Samples, Site, Source

_NEAR = 1e-3  # of the largest first score: rounding may take it over the gate
_MOST = 4000  # clean samples that evidence is made of; their summaries are held in memory


@dataclass(frozen=True, eq=False)
class Scoring:
    """How clean samples score.

    Attributes:
        evidence: What joins the margin difference in the score, or None.
        scores: Of clean samples, float32 ``(n,)``: with evidence of all of them, each by distances
            that were fitted without it; else of the calibration part. Of two stages, what all of
            them would score if all went on: the null is of these, so that two stages flag no more
            than one.
        calibration: What the detector scores the calibration part.
        expected: What the written detector is to score the calibration part.
        gate: Of two stages: the first score from which samples go on to the bounded branch; None
            where all of them go through it.
        goes_on: Of two stages: which of ``scores`` are of samples that go on, bool ``(n,)``.
        certain: Where ``expected`` does not hang on rounding, bool ``(n,)``.
        corrected: What a detector that flags everything, by margin difference, answers on the
            calibration part.
        warnings: One line each.
    """

    evidence: Evidence | None
    scores: npt.NDArray[np.float32]
    calibration: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]
    corrected: Verdicts
    warnings: tuple[str, ...] = ()
    gate: float | None = None
    goes_on: BoolArray | None = None
    certain: BoolArray | None = None

    def verdicts(self, null: Null, original: Predictions, hardened: Predictions) -> Verdicts:
        """What the detector answers on the calibration part to samples that evidence was not
        fitted on.

        Args:
            null: Fitted to ``scores``.
            original, hardened: Their answers on the calibration part; with a shadow, what that
                answers in the place of the hardened graph.
        """
        flagged, corrected = flags(null, self.calibration), self.corrected
        stays = np.zeros_like(flagged)
        if self.evidence is not None:
            stays = _decided(hardened, original.classes) & (corrected.score < self.evidence.usual)

        def rows(which: BoolArray, like: npt.NDArray[Any]) -> BoolArray:
            return which.reshape(-1, *(1,) * (like.ndim - 1))

        def chosen(
            answer: npt.NDArray[Any], bounded: npt.NDArray[Any], before: npt.NDArray[Any]
        ) -> npt.NDArray[Any]:
            if_flagged = np.where(rows(stays, answer), bounded, answer)
            return np.where(rows(flagged, answer), if_flagged, before)

        return Verdicts(
            outputs={
                name: chosen(corrected.outputs[name], hardened.outputs[name], before)
                for name, before in original.outputs.items()
            },
            scores=chosen(corrected.scores, hardened.scores, original.scores),
            classes=chosen(corrected.classes, hardened.classes, original.classes),
            flagged=flagged,
            p_value=corrected.p_value,
            score=self.calibration,
            suspected=corrected.suspected,
            corrected=chosen(corrected.corrected, hardened.classes, corrected.suspected),
        )


def score_clean(
    run: Runner,
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    learned: Learned,
    fit: Samples,
    calibration: Samples,
    *,
    kind: Score,
    seed: int,
    read: Source = "bounded",
    odd: float | None = None,
    shadow: Shadow | None = None,
) -> Scoring:
    """Score clean samples as the detector will.

    Args:
        run: ONNX Runtime.
        proto: The original.
        interface: How it is fed and read.
        sites: Where bounds are.
        learned: The bounds.
        fit: What they were learned on.
        calibration: Other clean samples.
        kind: What to score by.
        seed: Of choices among samples.
        read: Branch that evidence is read in.
        odd: With evidence, the share of clean samples that are to go on from a first stage to the
            bounded branch; None for all, in one stage.
        shadow: The bounded branch, if it is no copy of the original's nodes.

    Raises:
        RewriteError: As ``build_detector``.
    """
    probe, outputs = build_probe(
        proto,
        interface,
        sites,
        learned.bounds,
        summaries=read if kind == "evidence" else None,
        shadow=shadow,
    )
    count = len(calibration)
    parts = [calibration]
    if kind == "evidence":
        parts.append(fit.at_most(max(_MOST - count, 0), seed))
    x = np.concatenate([part.x for part in parts])
    verdicts, summaries = run.probe(probe, outputs, x)
    corrected = _first(verdicts, count)
    by_margin = np.asarray(corrected.score, np.float32)
    if kind == "margin":
        return Scoring(None, by_margin, by_margin, by_margin, corrected)
    labels = [part.y for part in parts]
    known = [label for label in labels if label is not None]
    right = np.ones(len(x), np.bool_)
    if len(known) == len(labels):
        right = verdicts.suspected == np.concatenate(known)
    originals = None if odd is None else _margins(run.logits(proto, x), verdicts.suspected)
    found = fit_evidence(
        summaries,
        verdicts.suspected,
        np.asarray(verdicts.score, np.float32),
        originals,
        right=right,
        learned_on=np.arange(len(x)) >= count,
        classes=interface.classes,
        seed=seed,
    )
    if found is None:
        reason = (
            f"fewer than {FEWEST} clean samples"
            if len(x) < FEWEST
            else "no bounded activation with known channels that differs from sample to sample"
        )
        warning = f"the detector goes by the margin difference alone: {reason}"
        return Scoring(None, by_margin, by_margin, by_margin, corrected, (warning,))
    evidence, scores = found.evidence, found.scores
    calibrated = (
        {site: values[:, :count] for site, values in summaries.items()},
        verdicts.suspected[:count],
    )
    expected = evidence.scores(*calibrated, by_margin)
    if originals is None or odd is None:
        return Scoring(evidence, scores, scores[:count], expected, corrected)
    gate = np.quantile(found.firsts, 1 - odd).astype(np.float32)
    done = found.firsts < gate
    firsts = evidence.firsts(*calibrated, originals[:count])
    return Scoring(
        evidence,
        scores,
        np.where(done, found.firsts, scores)[:count],
        np.where(firsts < gate, firsts, expected),
        corrected,
        gate=float(gate),
        goes_on=~done,
        certain=np.abs(firsts - gate) > _NEAR * np.abs(firsts).max(initial=1.0),
    )


def _margins(logits: npt.NDArray[np.float32], classes: IntArray) -> npt.NDArray[np.float32]:
    """Margins ``(n,)`` of these classes."""
    logits = logits.reshape(len(logits), -1)
    if logits.shape[1] == 1:  # see ``Interface.single``
        logits = np.concatenate([-logits / 2, logits / 2], axis=1)
    own = np.arange(logits.shape[1]) == classes[:, None]
    others = np.where(own, np.float32(-np.inf), logits).max(1)
    return np.asarray(logits[np.arange(len(logits)), classes] - others, np.float32)


def _decided(given: Predictions, classes: IntArray) -> BoolArray:
    """Where a classifier's decisions are these classes, and no other class has an equal score."""
    same: BoolArray = given.classes == classes
    if given.scores.ndim == 1:
        return same
    own = np.arange(given.scores.shape[1]) == given.classes[:, None]
    values = given.scores.astype(np.float64)
    others = np.where(own, -np.inf, values).max(1)
    return np.asarray(same & (others < values.max(1)))


def _first(verdicts: Verdicts, count: int) -> Verdicts:
    """What was answered to the first so many samples."""
    rows = {
        field.name: getattr(verdicts, field.name)[:count]
        for field in fields(verdicts)
        if field.name != "outputs"
    }
    outputs = {name: values[:count] for name, values in verdicts.outputs.items()}
    return replace(verdicts, outputs=outputs, **rows)
