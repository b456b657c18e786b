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
from mmbm_onnx.evaluation.predictions import (
    Predictions,
    Verdicts,
    predict,
    predict_detector,
)
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.statistics import activation_statistics, share_above
from mmbm_onnx.pipeline.preparation import BATCH
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import Null, fit_null, leave_one_out_rate
from mmbm_onnx.runtime.batches import affordable_batch, run_batches
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import DETECTOR_OUTPUTS, Interface, Samples, Site

_NOISE_SAMPLES = 64
# Of bounded logits in ONNX Runtime against torch, relative to the largest logit.
_TOLERANCE = 1e-4
_HALF_TOLERANCE = 2e-2


@dataclass(frozen=True, slots=True)
class Written:
    """What was written and what it answered on the calibration part.

    Attributes:
        hardened: The hardened graph.
        detector: The detector graph, or None.
        null: Its null.
        leave_one_out: Share of calibration samples flagged, each against the null of the others.
        answers: Role to answers in ONNX Runtime.
        clean_max: Largest activation of each site on the calibration part; 0 if none gets there.
        share_above: Share of each site's activations above their bound there.
        torch_difference: Worst difference of the hardened graph's logits from torch with the same
            bounds there, over the largest logit.
        warnings: One line each.
    """

    hardened: onnx.ModelProto
    detector: onnx.ModelProto | None
    null: Null | None
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
        fit: The part bounds were learned on, for comparing graphs.
        calibration: The part the null is fitted on; nothing else sees it.
        false_positive_rate: Of the detector, or None for no detector.
        stamps: Provenance.
        provider, threads: Of ONNX Runtime.

    Raises:
        RewriteError: A graph is invalid, differs from torch with the same bounds, or a detector
            changes an output that it does not flag.
    """
    size = affordable_batch(calibration.x[0].size, BATCH)
    run = _Runner(interface, provider, threads, size)
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
    warnings: list[str] = []
    if false_positive_rate is not None:
        scores = _clean_scores(run, proto, interface, sites, learned, calibration)
        null = fit_null(scores, false_positive_rate)
        leave_one_out = leave_one_out_rate(scores, false_positive_rate)
        if null.kind == "gaussian":
            warnings.append(
                f"{len(scores)} calibration samples are too few for a distribution-free threshold "
                f"at a false-positive rate of {false_positive_rate:g}; a Gaussian tail is used"
            )
        detector = _write_detector(
            run, proto, interface, sites, learned, null, stamps, (fit.x, calibration.x)
        )
        answers["detector"] = run.verdicts(detector, calibration.x)
    found = activation_statistics(classifier, x, sites, "tensor", run.batch_size)
    return Written(
        hardened=hardened,
        detector=detector,
        null=null,
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


def _clean_scores(
    run: _Runner,
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    learned: Learned,
    calibration: Samples,
) -> npt.NDArray[np.float32]:
    """Scores of the calibration part, ``(n,)`` in logits, from the very graph that will ship.

    The score does not depend on the null, so a stand-in will do to build the graph with.
    """
    stand_in = fit_null(np.zeros(2, np.float32), 0.5)
    draft = build_detector(proto, interface, sites, learned.bounds, stand_in)
    return np.asarray(run.verdicts(draft, calibration.x).score, dtype=np.float32)


class _Runner:
    """ONNX Runtime with the same settings for every graph."""

    def __init__(
        self, interface: Interface, provider: str | None, threads: int | None, batch_size: int
    ) -> None:
        self.interface = interface
        self.batch_size = batch_size
        self.provider = provider
        self.threads = threads

    def session(self, proto: onnx.ModelProto) -> Session:
        return Session(proto, provider=self.provider, threads=self.threads)

    def logits(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        name = self.interface.logits
        session = self.session(with_outputs(proto, [name]))
        found = run_batches(session, self.interface, x, [name], self.batch_size)[name]
        logits: npt.NDArray[np.float32] = np.asarray(found).astype(np.float32)
        return logits

    def answers(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> Predictions:
        return predict(self.session(proto), self.interface, x, batch_size=self.batch_size)

    def verdicts(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> Verdicts:
        return predict_detector(self.session(proto), self.interface, x, batch_size=self.batch_size)


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
    run: _Runner,
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    learned: Learned,
    null: Null,
    stamps: Mapping[str, str],
    parts: Sequence[npt.NDArray[Any]],
) -> onnx.ModelProto:
    """The detector, with a shared prefix unless that changes a bit of an unflagged output."""
    x = np.concatenate([*parts, _noise(parts[0])])
    original = run.answers(proto, x).outputs
    for share_prefix in (True, False):
        detector = build_detector(
            proto, interface, sites, learned.bounds, null, share_prefix=share_prefix
        )
        rate = repr(null.false_positive_rate)
        stamp(detector, {**stamps, "graph": "detector", FALSE_POSITIVE_RATE: rate})
        check_written(detector)
        check_signature(proto, detector, DETECTOR_OUTPUTS)
        verdicts = run.verdicts(detector, x)
        shared = {name: verdicts.outputs[name] for name in original}
        differing = rows_that_differ(original, shared) & ~verdicts.flagged
        if not differing.any():
            return detector
    raise RewriteError(
        f"the detector changes {int(differing.sum())} of {len(x)} outputs that it does not flag; "
        "nothing is written"
    )


def _noise(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (_NOISE_SAMPLES, *x.shape[1:])
    return rng.uniform(float(x.min()), float(x.max()), shape).astype(x.dtype)
