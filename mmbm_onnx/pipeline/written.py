"""Graphs written from learned bounds, each compared with ONNX Runtime before anyone sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.compare import rows_that_differ, worst_difference
from mmbm_onnx.evaluation.defence import FALSE_POSITIVE_RATE
from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.learning.statistics import activation_statistics, share_above
from mmbm_onnx.pipeline.preparation import BATCH
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.scoring import Scoring, score_clean
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import Null, fit_null, leave_one_out_rate
from mmbm_onnx.runtime.batches import affordable_batch
from mmbm_onnx.types import DETECTOR_OUTPUTS, Interface, Samples, Site

_NOISE_SAMPLES = 64
# Of bounded logits in ONNX Runtime against torch, relative to the largest logit.
_TOLERANCE = 1e-4
_HALF_TOLERANCE = 2e-2
_SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Written:
    """What was written and what it answered on the calibration part.

    Attributes:
        hardened: The hardened graph.
        detector: The detector graph, or None.
        null: Its null.
        score: What it flags by: evidence only where there is some.
        leave_one_out: Share of the null's samples flagged, each against the null of the others.
        answers: Role to answers in ONNX Runtime; the detector's are those to samples that its
            evidence was not fitted on.
        clean_max: Largest activation of each site on the calibration part; 0 if none gets there.
        share_above: Share of each site's activations above their bound there.
        torch_difference: Worst difference of the hardened graph's logits from torch with the same
            bounds there, over the largest logit.
        warnings: One line each.
    """

    hardened: onnx.ModelProto
    detector: onnx.ModelProto | None
    null: Null | None
    score: Score
    leave_one_out: float | None
    answers: Mapping[str, Predictions]
    clean_max: Mapping[str, float]
    share_above: Mapping[str, float]
    torch_difference: float
    warnings: list[str] = field(default_factory=list)


def write_graphs(
    *,
    model: OnnxModel,
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    learned: Learned,
    classifier: Classifier,
    fit: Samples,
    calibration: Samples,
    false_positive_rate: float | None,
    score: Score,
    seed: int,
    stamps: Mapping[str, str],
    provider: str | None,
    threads: int | None,
) -> Written:
    """Write the hardened graph and, with a false-positive rate, the detector graph.

    Args:
        model: The original, for messages.
        proto: The graph that bounds are written into.
        interface: How it is fed and read.
        sites: Where bounds go.
        learned: The bounds.
        classifier: The torch execution that ONNX Runtime must agree with.
        fit: The part bounds were learned on.
        calibration: The part that they are judged on.
        false_positive_rate: Of the detector, or None for no detector.
        score: What the detector flags by.
        seed: Of choices among samples.
        stamps: Provenance.
        provider, threads: Of ONNX Runtime.

    Raises:
        RewriteError: A graph is invalid, differs from torch with the same bounds, or a detector
            changes an output that it does not flag.
    """
    size = affordable_batch(calibration.x[0].size, BATCH)
    run = Runner(interface, provider, threads, size)
    stamps = {**stamps, "bounds": str(len(learned.bounds))}
    hardened = insert_bounds(proto, sites, learned.bounds)
    stamp(hardened, {**stamps, "graph": "hardened"})
    check_written(hardened)
    check_signature(proto, hardened)
    bounded = run.logits(hardened, calibration.x)
    tensors = {
        name: torch.from_numpy(np.array(bound)).to(classifier.device)
        for name, bound in learned.bounds.items()
    }
    x = torch.from_numpy(calibration.x).to(classifier.device, classifier.dtype)
    half = calibration.x.dtype.itemsize == 2
    difference = _check_against_torch(classifier, tensors, x, bounded, size, half=half)

    answers = {"original": run.answers(proto, calibration.x)}
    answers["hardened"] = run.answers(hardened, calibration.x)
    detector, null, leave_one_out = None, None, None
    flags_by: Score = "margin"
    warnings: list[str] = []
    if false_positive_rate is not None:
        for kind in dict.fromkeys((score, "margin")):
            scoring = score_clean(
                run,
                proto,
                interface,
                sites,
                learned,
                fit,
                calibration,
                kind=kind,
                seed=seed,
            )
            flags_by = "margin" if scoring.evidence is None else "evidence"
            steady = scoring.evidence is not None
            null = fit_null(scoring.scores, false_positive_rate, steady=steady)
            leave_one_out = leave_one_out_rate(scoring.scores, false_positive_rate, steady=steady)
            try:
                detector = _write_detector(
                    run,
                    proto,
                    interface,
                    sites,
                    learned,
                    null,
                    scoring,
                    stamps,
                    (calibration.x, fit.x),
                )
            except ScoreError as error:
                if scoring.evidence is None:
                    raise
                warnings.append(f"the detector goes by the margin difference alone: {error}")
                continue
            warnings.extend(scoring.warnings)
            answers["detector"] = scoring.verdicts(null, answers["original"])
            break
        assert null is not None
        if null.kind == "gaussian":
            warnings.append(
                f"{len(null.scores)} clean scores are too few for a distribution-free threshold "
                f"at a false-positive rate of {false_positive_rate:g}; a Gaussian tail is used"
            )
    found = activation_statistics(classifier, x, sites, "tensor", run.batch_size)
    return Written(
        hardened=hardened,
        detector=detector,
        null=null,
        score=flags_by,
        leave_one_out=leave_one_out,
        answers=answers,
        clean_max={
            site.tensor: float(found[site.tensor].maximum) if site.tensor in found else 0.0
            for site in sites
        },
        share_above=share_above(classifier, x, sites, tensors, run.batch_size),
        torch_difference=difference,
        warnings=warnings,
    )


class ScoreError(RewriteError):
    """The graph does not compute the score that its null is of."""


def _check_against_torch(
    classifier: Classifier,
    bounds: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    bounded: npt.NDArray[np.float32],
    batch_size: int,
    *,
    half: bool,
) -> float:
    with torch.no_grad():
        expected = torch.cat(
            [classifier.logits(part, bounds) for part in torch.split(x, batch_size)]
        )
    found = worst_difference(expected.cpu().float().numpy(), bounded).relative
    if not found <= (_HALF_TOLERANCE if half else _TOLERANCE):
        raise RewriteError(
            f"the hardened graph differs from torch with the same bounds by {found:.1e} of the "
            "largest logit; nothing is written"
        )
    return found


def _write_detector(
    run: Runner,
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    learned: Learned,
    null: Null,
    scoring: Scoring,
    stamps: Mapping[str, str],
    parts: Sequence[npt.NDArray[Any]],
) -> onnx.ModelProto:
    """The detector, with a shared prefix unless that changes a bit of an unflagged output."""
    x = np.concatenate([*parts, _noise(parts[0])])
    original = run.answers(proto, x).outputs
    for share_prefix in (True, False):
        detector = build_detector(
            proto,
            interface,
            sites,
            learned.bounds,
            null,
            scoring.evidence,
            share_prefix=share_prefix,
        )
        rate = repr(null.false_positive_rate)
        stamp(detector, {**stamps, "graph": "detector", FALSE_POSITIVE_RATE: rate})
        check_written(detector)
        check_signature(proto, detector, DETECTOR_OUTPUTS)
        verdicts = run.verdicts(detector, x)
        shared = {name: verdicts.outputs[name] for name in original}
        differing = rows_that_differ(original, shared) & ~verdicts.flagged
        if not differing.any():
            _check_scores(verdicts.score[: len(parts[0])], scoring.expected, x.dtype)
            return detector
    raise RewriteError(
        f"the detector changes {int(differing.sum())} of {len(x)} outputs that it does not flag; "
        "nothing is written"
    )


def _check_scores(
    found: npt.NDArray[Any], expected: npt.NDArray[np.float32], dtype: np.dtype[Any]
) -> None:
    tolerance = _HALF_TOLERANCE if dtype.itemsize == 2 else _SCORE_TOLERANCE
    scale = float(np.abs(expected).max(initial=1.0))
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance * scale:
        raise ScoreError(
            f"its scores differ by {difference:.1e} in ONNX Runtime from those that the threshold "
            "is set by"
        )


def _noise(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (_NOISE_SAMPLES, *x.shape[1:])
    return rng.uniform(float(x.min()), float(x.max()), shape).astype(x.dtype)
