"""Everything that made a hardening what it is, as names and values for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmbm_onnx.report.layout import number, percent

UNITS = {"evidence": "standard deviations", "margin": "logits"}
"""Of a detector's score, by what it goes by."""

Group = tuple[str, list[tuple[str, str]]]


def settings_of(report: Mapping[str, Any]) -> list[Group]:
    """Titles and, under each, names and values; what a report has no value for is left out.

    Args:
        report: A harden report.
    """
    execution, parity, tool = report["execution"], report["parity"], report["tool"]
    folding = report["folding"]
    method = {
        "granularity": f"one bound per {report['method']['granularity']}",
        **report["method"]["settings"],
        "folding": folding["requested"],
        "folding stopped by": folding["obstacle"],
    }
    run = {
        "seed": report["seed"],
        "learned on": execution["device"],
        "ONNX Runtime on": execution["providers"],
        "threads": execution["threads"] or "as the libraries choose",
        "torch against ONNX Runtime": f"{parity['max_relative_difference']:.1e} of a logit",
        "the same, hardened": f"{parity['hardened_max_relative_difference']:.1e}",
        "allowed": f"{parity['tolerance']:.0e}",
        **{f"seconds to {name}": f"{took:.1f}" for name, took in report["seconds"].items()},
    }
    software = {
        "mmbm-onnx": tool["version"],
        "Python": tool["python"],
        "system": tool["platform"],
        **tool["libraries"],
    }
    groups = {
        "Model": _model(report["model"]),
        "Clean samples": _clean(report["clean_set"], report["model"]["classes"]),
        "Method": method,
        "Detector": _detector(report["detector"]),
        "Run": run,
        "Software": software,
    }
    return [
        (title, [(name, _shown(value)) for name, value in entries.items() if value is not None])
        for title, entries in groups.items()
        if entries
    ]


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    shape = ", ".join("any" if axis is None else str(axis) for axis in model["input_shape"])
    return {
        "file": model["path"] or "in memory",
        "SHA-256": model["sha256"],
        "format": f"opset {model['opset']}, IR {model['ir_version']}",
        "input": f"{model['input']}: {model['input_dtype']} ({shape})",
        "output": f"{model['output']} ({model['head']}), {model['classes']} classes",
        "logits": model["logits"],
    }


def _clean(clean: Mapping[str, Any], classes: int) -> dict[str, Any]:
    parts = f"{clean['fit']} to learn, {clean['calibration']} to calibrate"
    images = clean["preprocessing"] or {}
    return {
        "source": clean["source"],
        "samples": f"{clean['samples']}: {parts}",
        "classes": f"{clean['classes']} of {classes} occur",
        "labels": clean["has_labels"],
        **{f"image {name}": value for name, value in images.items() if name != "notes"},
    }


def _detector(detector: Mapping[str, Any] | None) -> dict[str, Any]:
    if detector is None:
        return {}
    second = detector["second_stage"]
    return {
        "null": f"{detector['null']}, of {detector['null_samples']} samples",
        "score": f"{detector['score']}, in {UNITS[detector['score']]}",
        "evidence read in": detector["evidence"],
        "threshold": detector["threshold_score"],
        "go on to the bounded branch": "all samples" if second is None else percent(second),
        "bounded branch": detector["shadow"],
        "why not another": detector["shadow_reason"],
    }


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    return str(value)
