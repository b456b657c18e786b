"""The JSON report of a hardening: versioned, documented, strict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmbm_onnx.evaluation.figures import Figures
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.evaluation.latency import Latency
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.report.benchmark import benchmark_of
from mmbm_onnx.report.inspection import coverage, model_dict, site_dict
from mmbm_onnx.report.pieces import (
    BoundedSite,
    CleanSet,
    DetectorPart,
    Execution,
    Folding,
    Method,
    Parity,
    Tool,
)
from mmbm_onnx.types import Interface, Uncovered

SCHEMA = "mmbm-onnx/harden-report"
VERSION = 1


def harden_report(
    *,
    tool: Tool,
    model: OnnxModel,
    interface: Interface,
    clean_set: CleanSet,
    method: Method,
    sites: Sequence[BoundedSite],
    uncovered: Sequence[Uncovered],
    figures: Mapping[str, Figures],
    detector: DetectorPart | None,
    latency: Sequence[Latency],
    execution: Execution,
    folding: Folding,
    parity: Parity,
    seed: int,
    seconds: Mapping[str, float],
    gates: Sequence[Gate],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Put the pieces together, as ``report/schema/harden-report-1.json`` describes them.

    Args:
        tool: What wrote it.
        model: The original.
        interface: How it is fed and read.
        clean_set: The samples.
        method: How bounds were learned.
        sites: The bounded sites, in graph order.
        uncovered: Activations without a bound.
        figures: Role (``"original"``, ``"hardened"``, ``"detector"``) to its figures on the
            calibration split.
        detector: How the detector decides, or None without one.
        latency: Of all graphs.
        execution: Where everything ran.
        folding: How bounds were written.
        parity: Of torch with ONNX Runtime.
        seed: Of the split, the learning and the latency inputs.
        seconds: Phase to the time it took, in seconds.
        gates: Every gate.
        warnings: One line each.

    Returns:
        Strict JSON types; ``files`` is empty until `with_files`.

    Raises:
        ValueError: A number is not finite; its place is named.
    """
    scores = {role: _scores(figures[role]) for role in figures}
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "passed": all(gate.passed for gate in gates),
        "tool": tool,
        "model": model_dict(model, interface),
        "clean_set": clean_set,
        "method": method,
        "folding": folding,
        "sites": [_site(entry) for entry in sites],
        "uncovered": list(uncovered),
        "coverage": coverage(len(sites), len(uncovered)),
        "figures": {role: scores.get(role) for role in ("original", "hardened", "detector")},
        "detector": detector,
        "latency": list(latency),
        "seed": seed,
        "execution": execution,
        "parity": parity,
        "seconds": dict(seconds),
        "benchmark": benchmark_of(
            method.name,
            ["hardened"] if detector is None else ["detector", "hardened"],
            method.granularity,
        ),
        "gates": [gate.to_dict() for gate in gates],
        "warnings": list(warnings),
        "files": [],
    }
    return {key: strict(value, key) for key, value in report.items()}


def with_files(
    report: Mapping[str, Any], files: Mapping[str, tuple[Sequence[Path], str]]
) -> dict[str, Any]:
    """The report with the files that were written.

    Args:
        report: From `harden_report`; not changed.
        files: Role (``"hardened"``, ``"detector"``) to its files, one with weights last where there
            is one, and SHA-256 of their bytes in hex.
    """
    entries = [
        {
            "role": role,
            "path": str(paths[0]),
            "data": str(paths[1]) if len(paths) > 1 else None,
            "sha256": digest,
        }
        for role, (paths, digest) in files.items()
    ]
    return {**report, "files": entries}


def to_json(report: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON of a report, indented, ending in a newline.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(strict(report, ""), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def strict(value: Any, where: str) -> Any:
    """``value`` in the types that JSON has, NumPy's scalars and dataclasses turned into them.

    Raises:
        ValueError: A number is not finite, or a value has no form in JSON; ``where`` begins the
            name of its place.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise ValueError(f"report: {where} is {value}, expected a finite number")
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return strict(asdict(value), where)
    if isinstance(value, Mapping):
        return {str(k): strict(v, f"{where}.{k}" if where else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"report: {where} is a {type(value).__name__}, which JSON cannot hold")


def _scores(figures: Figures) -> dict[str, float | None]:
    return {"accuracy": figures.accuracy, "agreement": figures.agreement}


def _site(entry: BoundedSite) -> dict[str, Any]:
    return {
        **site_dict(entry.site),
        "bounds": entry.bounds,
        "bound_min": entry.bound_min,
        "bound_median": entry.bound_median,
        "bound_max": entry.bound_max,
        "clean_max": entry.clean_max,
        "share_above": entry.share_above,
        "folded": entry.folded,
    }
