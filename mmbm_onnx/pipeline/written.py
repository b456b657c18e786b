"""Graphs written from learned bounds, each compared with ONNX Runtime before anyone sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import torch

from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.settings import Score
from mmbm_onnx.learning.statistics import Above, above_bounds, activation_statistics
from mmbm_onnx.pipeline.bounding import Bounded, Bounding
from mmbm_onnx.pipeline.examination import BATCH
from mmbm_onnx.pipeline.pairing import Paired, Pairing
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.shadowing import Shadowing
from mmbm_onnx.rewriting.checks import check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.runtime.batches import affordable_batch
from mmbm_onnx.types import Bounds, Choice, Granularity, Samples


@dataclass(frozen=True, slots=True)
class Written:
    """What was written and what it answered on the calibration part.

    Attributes:
        hardened: The hardened graph.
        paired: The detector graph and what belongs to it, or None.
        answers: Role, original or hardened, to answers in ONNX Runtime.
        clean_max: Largest activation of each site on the calibration part, channel by channel
            where these are known, float32 ``(channels,)`` or ``()``; 0 if none gets there.
        above: How many of each site's activations lie above their bound there.
        bounded: How the hardened graph's bounds were written.
    """

    hardened: onnx.ModelProto
    paired: Paired | None
    answers: Mapping[str, Predictions]
    clean_max: Mapping[str, npt.NDArray[np.float32]]
    above: Mapping[str, Above]
    bounded: Bounded


def rehearse(
    bounding: Bounding,
    granularity: Granularity,
    x: npt.NDArray[np.float32],
    *,
    detector: bool,
    shadowing: Shadowing | None = None,
) -> None:
    """Build the graphs with bounds and a null that mean nothing, so that what stands in the way is
    told before the bounds are learned.

    Args:
        bounding: Writes bounds into the graph to work on.
        granularity: Of the bounds.
        x: Some samples, for a bounded branch in few bits.
        detector: Whether a detector graph is wanted.
        shadowing: What its bounded branch is to be; None for a copy of the original's nodes.

    Raises:
        RewriteError: As ``write_graphs``, short of what the bounds themselves tell.
        OptionError: Bounds cannot be folded that have to be, or there is no shadow that is asked
            for.
    """
    bounding.rehearse(channels=granularity == "channel")
    if detector and shadowing is not None:
        shadowing.rehearse(x, channels=granularity == "channel")
    if detector:
        proto, interface, sites = bounding.proto, bounding.interface, bounding.sites
        bounds = Bounds({site.tensor: np.ones((), np.float32) for site in sites})
        null = fit_null(np.linspace(-1, 1, 99, dtype=np.float32), 0.01)
        check_written(build_detector(proto, interface, sites, bounds, null))


def write_graphs(
    *,
    bounding: Bounding,
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
    cascade: Choice = "auto",
    shadowing: Shadowing | None = None,
) -> Written:
    """Write the hardened graph and, with a false-positive rate, the detector graph.

    Args:
        bounding: Writes bounds into the graph.
        learned: The bounds.
        classifier: The torch execution that ONNX Runtime must agree with.
        fit: The part bounds were learned on.
        calibration: The part that they are judged on.
        false_positive_rate: Of the detector, or None for no detector.
        score: What the detector flags by.
        seed: Of choices among samples.
        stamps: Provenance.
        provider, threads: Of ONNX Runtime.
        cascade: Whether the detector's bounded branch runs only for samples that look odd.
        shadowing: What that branch is; None for a copy of the original's nodes.

    Raises:
        RewriteError: A graph is invalid, differs from torch with the same bounds, or a detector
            changes an output that it does not flag.
    """
    proto, interface, sites = bounding.proto, bounding.interface, bounding.sites
    size = affordable_batch(calibration.x[0].size, BATCH)
    run = Runner(interface, provider, threads, size)
    stamps = {**stamps, "bounds": str(len(learned.bounds))}
    tensors = {
        name: torch.from_numpy(np.array(bound)).to(classifier.device)
        for name, bound in learned.bounds.items()
    }
    x = torch.from_numpy(calibration.x).to(classifier.device, classifier.dtype)
    expected = _expected(classifier, tensors, x, size)
    bounded = bounding.write(learned.bounds, run, calibration.x, expected)
    hardened = bounded.proto
    stamp(hardened, {**stamps, "graph": "hardened", **bounded.provenance})

    answers = {"original": run.answers(proto, calibration.x)}
    answers["hardened"] = run.answers(hardened, calibration.x)
    paired = None
    if shadowing is not None:
        unfit = bounded.failed or shadowing.unfit
        shadowing = replace(shadowing, unfit=unfit, folded=bounded.source)
    if false_positive_rate is not None:
        pairing = Pairing(
            run,
            proto,
            interface,
            sites,
            learned,
            fit,
            calibration,
            seed,
            stamps,
            cascade,
            shadowing,
        )
        paired = pairing.pair(answers["original"], answers["hardened"], false_positive_rate, score)
    found = activation_statistics(classifier, x, sites, "channel", run.batch_size)
    nowhere = np.zeros((), np.float32)
    return Written(
        hardened=hardened,
        paired=paired,
        answers=answers,
        clean_max={
            site.tensor: found[site.tensor].maximum.cpu().numpy()
            if site.tensor in found
            else nowhere
            for site in sites
        },
        above=above_bounds(classifier, x, sites, tensors, run.batch_size),
        bounded=bounded,
    )


def _expected(
    classifier: Classifier, bounds: Mapping[str, torch.Tensor], x: torch.Tensor, batch_size: int
) -> npt.NDArray[np.float32]:
    """Bounded logits as torch has them."""
    with torch.no_grad():
        logits = [classifier.logits(part, bounds) for part in torch.split(x, batch_size)]
    found: npt.NDArray[np.float32] = torch.cat(logits).cpu().float().numpy()
    return found
