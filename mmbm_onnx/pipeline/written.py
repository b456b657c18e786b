"""Graphs written from learned bounds, each compared with ONNX Runtime before anyone sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.compare import worst_difference
from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import HALF_TOLERANCE
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.learning.statistics import activation_statistics, share_above
from mmbm_onnx.pipeline.pairing import Paired, Pairing
from mmbm_onnx.pipeline.preparation import BATCH
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.runtime.batches import affordable_batch
from mmbm_onnx.types import Bounds, Interface, Samples, Site

# Of bounded logits in ONNX Runtime against torch, relative to the largest logit.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Written:
    """What was written and what it answered on the calibration part.

    Attributes:
        hardened: The hardened graph.
        paired: The detector graph and what belongs to it, or None.
        answers: Role, original or hardened, to answers in ONNX Runtime.
        clean_max: Largest activation of each site on the calibration part; 0 if none gets there.
        share_above: Share of each site's activations above their bound there.
        torch_difference: Worst difference of the hardened graph's logits from torch with the same
            bounds there, over the largest logit.
    """

    hardened: onnx.ModelProto
    paired: Paired | None
    answers: Mapping[str, Predictions]
    clean_max: Mapping[str, float]
    share_above: Mapping[str, float]
    torch_difference: float


def rehearse(
    proto: onnx.ModelProto, interface: Interface, sites: Sequence[Site], *, detector: bool
) -> None:
    """Build the graphs with bounds and a null that mean nothing, so that what stands in the way is
    told before the bounds are learned.

    Args:
        proto: The graph to work on; not changed.
        interface: How it is fed and read.
        sites: Where bounds go.
        detector: Whether a detector graph is wanted.

    Raises:
        RewriteError: As ``write_graphs``, short of what the bounds themselves tell.
    """
    bounds = Bounds({site.tensor: np.ones((), np.float32) for site in sites})
    check_written(insert_bounds(proto, sites, bounds))
    if detector:
        null = fit_null(np.linspace(-1, 1, 99, dtype=np.float32), 0.01)
        check_written(build_detector(proto, interface, sites, bounds, null))


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
    half = has_halves(proto)
    difference = _check_against_torch(classifier, tensors, x, bounded, size, half=half)

    answers = {"original": run.answers(proto, calibration.x)}
    answers["hardened"] = run.answers(hardened, calibration.x)
    paired = None
    if false_positive_rate is not None:
        pairing = Pairing(run, proto, interface, sites, learned, fit, calibration, seed, stamps)
        paired = pairing.pair(answers["original"], answers["hardened"], false_positive_rate, score)
    found = activation_statistics(classifier, x, sites, "tensor", run.batch_size)
    return Written(
        hardened=hardened,
        paired=paired,
        answers=answers,
        clean_max={
            site.tensor: float(found[site.tensor].maximum) if site.tensor in found else 0.0
            for site in sites
        },
        share_above=share_above(classifier, x, sites, tensors, run.batch_size),
        torch_difference=difference,
    )


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
    if not found <= (HALF_TOLERANCE if half else _TOLERANCE):
        raise RewriteError(
            f"the hardened graph differs from torch with the same bounds by {found:.1e} of the "
            "largest logit; nothing is written"
        )
    return found
