"""The pieces of a harden report, each filled in by whoever measured it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmbm_onnx.types import Choice, Granularity, Site, Source

LIBRARIES = ("numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "onnxruntime-gpu", "torch")


@dataclass(frozen=True, slots=True)
class CleanSet:
    """The trusted samples and how they were used.

    Attributes:
        source: What they were read from.
        samples: Number of samples.
        fit: Number of them that bounds were learned from.
        calibration: Number of the others, for the null, the gates and steering.
        classes: Number of classes that occur, by label, or by the original's decisions.
        class_names: Names of the classes in index order; may be empty.
        has_labels: Whether they came with labels.
        preprocessing: ``Preprocessing.describe()``, or None for samples taken as they are.
        notes: What reading them decided, one line each.
    """

    source: str
    samples: int
    fit: int
    calibration: int
    classes: int
    class_names: tuple[str, ...]
    has_labels: bool
    preprocessing: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BoundedSite:
    """A site with a summary of its bounds, in the unit of the activation.

    Attributes:
        site: The site.
        bounds: Number of its bounds: its channels, or 1.
        bound_min: Smallest bound.
        bound_median: Median bound.
        bound_max: Largest bound.
        clean_max: Largest activation on the calibration split.
        share_above: Share of the calibration split's activations above their bound, a fraction.
        folded: Whether the bounds are folded into weights, with one limit for all channels left.
    """

    site: Site
    bounds: int
    bound_min: float
    bound_median: float
    bound_max: float
    clean_max: float
    share_above: float
    folded: bool = False


def summarize_site(
    site: Site,
    bound: npt.NDArray[Any],
    *,
    clean_max: float,
    share_above: float,
    folded: bool = False,
) -> BoundedSite:
    """Summary of one site's bounds, shape ``(channels,)`` or ``()``."""
    values = np.asarray(bound, np.float64).reshape(-1)
    return BoundedSite(
        site=site,
        bounds=values.size,
        bound_min=float(values.min()),
        bound_median=float(np.median(values)),
        bound_max=float(values.max()),
        clean_max=float(clean_max),
        share_above=float(share_above),
        folded=folded,
    )


@dataclass(frozen=True, slots=True)
class DetectorPart:
    """How the detector decides.

    Attributes:
        false_positive_rate_requested: What was asked for, a fraction.
        false_positive_rate_measured: Share of clean samples flagged, a fraction.
        measured_on: How: ``"leave-one-out"``, each sample of the null against the null of the
            others, or ``"calibration"``, all against the null they make themselves.
        score: ``"margin"``, the margin difference in logits, or ``"evidence"``, which adds how
            unlike clean samples of the decided class the activations are, in standard deviations.
        evidence: Branch whose activations evidence is of; None without evidence.
        second_stage: Share of clean samples that go on to the bounded branch, a fraction; None
            where all do.
        shadow: What the bounded branch is: ``"float"``, a copy of the original's nodes that shares
            its weights; ``"folded"``, the folded graph with weights of its own; ``"int8"`` or
            ``"half"``, that in fewer bits.
        shadow_reason: Why it is ``"float"`` where it might have been another; or None.
        null: ``"conformal"`` (distribution-free) or ``"gaussian"`` (the tail of a normal
            distribution, where there are too few samples).
        null_samples: Number of samples the null was made from.
        threshold_score: Score from which a sample is flagged; None where none is.
    """

    false_positive_rate_requested: float
    false_positive_rate_measured: float
    measured_on: Literal["leave-one-out", "calibration"]
    score: Literal["evidence", "margin"]
    evidence: Source | None
    second_stage: float | None
    shadow: Literal["float", "folded", "half", "int8"]
    shadow_reason: str | None
    null: Literal["conformal", "gaussian"]
    null_samples: int
    threshold_score: float | None


@dataclass(frozen=True, slots=True)
class Method:
    """How the bounds were learned: the method's name, and every setting by name."""

    name: str
    granularity: Granularity
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Folding:
    """How bounds per channel were written into the hardened graph.

    Attributes:
        requested: Whether they were to be folded into weights.
        depthwise: Whether depthwise convolutions were allowed for that.
        obstacle: Why none is folded, where something stands in the way of all.
    """

    requested: Choice
    depthwise: bool
    obstacle: str | None


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of the torch execution with ONNX Runtime, in logits.

    Attributes:
        max_relative_difference: Of the original before learning: worst difference over the
            largest logit.
        hardened_max_relative_difference: Of the hardened graph on the calibration split, from
            torch with the same bounds.
        tolerance: What is allowed.
    """

    max_relative_difference: float
    hardened_max_relative_difference: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Execution:
    """Where everything ran.

    Attributes:
        device: Torch device of the learning (``"cpu"``, ``"cuda"``).
        provider_requested: Execution provider as asked for, or None.
        providers: Execution providers that ran, ONNX Runtime's names.
        threads: Threads asked for, or None.
    """

    device: str
    provider_requested: str | None
    providers: tuple[str, ...]
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """What wrote the report: our version, Python's, and those of the libraries installed."""

    version: str
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")
    libraries: Mapping[str, str] = field(default_factory=lambda: library_versions())


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that results depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
