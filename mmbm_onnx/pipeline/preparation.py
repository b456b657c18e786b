"""What comes before learning: survey the model, read and check the samples, divide them.

Without torch, so that a wrong path or a wrong label is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from mmbm_onnx.data import split
from mmbm_onnx.errors import ModelError, NothingToHardenError
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.sites import SiteReport, find_sites
from mmbm_onnx.graph.walk import ancestors
from mmbm_onnx.pipeline.examination import check_not_quantized, clean_set, examine, valid_graph
from mmbm_onnx.report.pieces import CleanSet
from mmbm_onnx.types import Interface, Samples


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model and samples that learning can start from.

    Attributes:
        model: The original.
        proto: The graph to work on: the original's, activation functions inlined.
        interface: How it is fed and read.
        report: Its sites.
        clean_set: What the report tells of the samples.
        fit: The part to learn from.
        calibration: The part for null and gates, and for steering.
        providers: Execution providers that ran the original.
        warnings: One line each.
    """

    model: OnnxModel
    proto: onnx.ModelProto
    interface: Interface
    report: SiteReport
    clean_set: CleanSet
    fit: Samples
    calibration: Samples
    providers: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(
    model: OnnxModel,
    read: Callable[[Interface], Samples],
    *,
    input_name: str | None,
    logits_name: str | None,
    calibration_fraction: float,
    min_accuracy: float | None,
    seed: int,
    provider: str | None,
    threads: int | None,
) -> Prepared:
    """Check everything that can be checked before learning; see ``harden`` for the options.

    Args:
        model: The original.
        read: Reads the clean set for a model's interface.

    Raises:
        MmbmError: As ``harden``.
    """
    proto, inlined = _survey(model)
    interface = find_interface(
        proto, input_name=input_name, logits_name=logits_name, label=model.label
    )
    report = _find_sites(model, proto, interface)
    samples = read(interface)
    warnings = [f"local functions with activations were inlined: {', '.join(inlined)}"] * bool(
        inlined
    )
    examined = examine(
        model,
        proto,
        interface,
        samples,
        min_accuracy=min_accuracy,
        provider=provider,
        threads=threads,
    )
    fit, calibration = split(
        samples, fraction=1 - calibration_fraction, seed=seed, labels=examined.decided
    )
    return Prepared(
        model=model,
        proto=proto,
        interface=interface,
        report=report,
        clean_set=clean_set(samples, len(fit), len(calibration), examined.decided),
        fit=fit,
        calibration=calibration,
        providers=examined.providers,
        warnings=(*warnings, *examined.warnings),
    )


def _survey(model: OnnxModel) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph to work on, and the functions inlined in it."""
    before = read_provenance(model.proto)
    if before:
        raise ModelError(
            f"{model.label}: is hardened already (method {before.get('method', 'unknown')}, "
            f"from the original {before.get('original_sha256', 'unknown')[:12]}); start from "
            "the original"
        )
    return valid_graph(model)


def _find_sites(model: OnnxModel, proto: onnx.ModelProto, interface: Interface) -> SiteReport:
    check_not_quantized(
        model,
        proto,
        interface,
        "harden the model as it was before, then quantize the hardened graph",
    )
    report = find_sites(proto, logits=interface.logits)
    if not report.sites:
        reasons = sorted({f"{item.op_type}: {item.reason}" for item in report.uncovered})
        found = f" ({'; '.join(reasons[:3])})" if reasons else ""
        raise NothingToHardenError(
            f"{model.label}: no activation takes a bound{found}; nothing to harden"
        )
    start = interface.start
    inner = [site.tensor for site in report.sites if not site.scope]
    if start is not None and inner and start not in ancestors(proto.graph, inner):
        raise ModelError(
            f"{model.label}: no activation follows {start!r}, which the integers of input "
            f"{interface.input!r} are embedded as, so attacks would meet no bound; give the "
            "embedded values as the input"
        )
    return report
