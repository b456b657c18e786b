"""The graphs that are timed beside the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from benchmarks.latency.networks import Network, blots
from benchmarks.quantized.static import quantized
from mmbm_onnx.errors import RewriteError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.learning.statistics import activation_statistics
from mmbm_onnx.pipeline.bounding import folding_of
from mmbm_onnx.pipeline.pairing import Pairing
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.shadowing import Shadowing
from mmbm_onnx.rewriting.folding.fold import fold_recorded
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.batches import run_batches
from mmbm_onnx.runtime.converting import to_half
from mmbm_onnx.runtime.providers import CPU, resolve_provider
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import BoolArray, Bounds, Choice, Interface, Samples, ShadowChoice

ORIGINAL_HALF = "original-half"
"""The role of the original in float16."""
IS_ODD = "mmbm_decision/is_odd"
"""What a detector in two stages sends through its bounded branch, ``(n,)``."""
_SAMPLES = 120  # half of them for the detector's distances, half for its null
_BATCH = 8
_RANGES = 16  # samples that ranges of int8 are taken from
_RATE = 0.01
_CASCADE: dict[str, Choice] = {"both": "never", "detector": "always"}


def graphs(
    network: Network, provider: str, calibrated_on: str | None
) -> dict[str, onnx.ModelProto]:
    """The original; hardened with Min, with bounds folded, and that in few bits; the detector in
    one stage (``both``) and two, with its usual bounded branch, with a copy of the original for
    one, and with one in few bits, unless that decides otherwise. Few bits are int8 on a CPU, else
    float16, and then there is the original in these, too.

    Bounds are where learning starts: each channel's mean and standard deviation on samples. What
    they are does not change what they cost.

    Args:
        network: The original.
        provider: Where they are to run.
        calibrated_on: Where what detectors go by is measured.
    """
    on_cpu = resolve_provider(provider) == CPU
    proto = network.proto
    interface = find_interface(proto)
    sites = find_sites(proto, logits=interface.logits).sites
    x = blots(_SAMPLES, network.shape, 0)
    classifier = Classifier(proto, interface, sites, torch.device("cpu"))
    found = activation_statistics(classifier, torch.from_numpy(x[:16]), sites, "channel", _BATCH)
    bounds = Bounds({name: _start(one.mean, one.std) for name, one in found.items()})
    del classifier
    hardened = fold_recorded(proto, sites, folding_of(bounds, interface, provider)).proto
    made = {
        "original": proto,
        "min": insert_bounds(proto, sites, bounds),
        "hardened": hardened,
    }
    if on_cpu:
        made["int8"] = quantized(hardened, x[:_RANGES])
    else:
        made |= {ORIGINAL_HALF: to_half(proto), "half": to_half(hardened)}
    few: ShadowChoice = "int8" if on_cpu else "half"
    shadows: tuple[tuple[str, ShadowChoice], ...] = (
        ("", "auto"), ("-float", "float"), (f"-{few}", few)
    )  # fmt: skip
    for suffix, shadow in shadows:
        for kind, cascade in _CASCADE.items():
            try:
                made[kind + suffix] = _detector(
                    proto, bounds, x, cascade, shadow, provider, calibrated_on
                )
            except RewriteError as error:
                print(f"no {kind}{suffix}: {error}", flush=True)
    return made


def goes_on(
    detector: onnx.ModelProto,
    interface: Interface,
    x: npt.NDArray[Any],
    provider: str | None = None,
) -> BoolArray:
    """Which samples ``(n, ...)`` a detector in two stages sends through its bounded branch."""
    session = Session(with_outputs(detector, [IS_ODD]), provider=provider)
    return np.asarray(run_batches(session, interface, x, [IS_ODD], _BATCH)[IS_ODD], np.bool_)


def _start(mean: torch.Tensor, std: torch.Tensor) -> npt.NDArray[np.float32]:
    values = (mean + std).clamp_min(1e-3).cpu().numpy()
    return np.asarray(values, np.float32)


def _detector(
    proto: onnx.ModelProto,
    bounds: Bounds,
    x: npt.NDArray[np.float32],
    cascade: Choice,
    shadow: ShadowChoice,
    provider: str,
    calibrated_on: str | None,
) -> onnx.ModelProto:
    interface = find_interface(proto)
    sites = find_sites(proto, logits=interface.logits).sites
    run = Runner(interface, calibrated_on, 2, _BATCH)
    fit, calibration = Samples(x[: _SAMPLES // 2]), Samples(x[_SAMPLES // 2 :])
    hardened = insert_bounds(proto, sites, bounds)
    pairing = Pairing(
        run,
        proto,
        interface,
        sites,
        Learned(bounds, [], len(fit)),
        fit,
        calibration,
        0,
        {},
        cascade,
        Shadowing(shadow, proto, interface, sites, provider),
    )
    answers = run.answers(proto, calibration.x), run.answers(hardened, calibration.x)
    paired = pairing.pair(*answers, _RATE, "evidence")
    if (paired.odd is None) != (cascade == "never"):
        raise SystemExit(f"the detector is not of the kind to be timed: {paired.warnings}")
    return paired.detector
