"""The page of a hardening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmbm_onnx.report.html.figures import attacks_figure, bounds_strip, gutter, latency_figure
from mmbm_onnx.report.html.material import Material, RecoveredTrigger, ScanOutcome
from mmbm_onnx.report.html.pictures import View, view_of
from mmbm_onnx.report.html.render import (
    cards,
    class_name,
    gate_rows,
    percent,
    points,
    render,
)
from mmbm_onnx.report.html.score_figures import p_value_curve, score_figure
from mmbm_onnx.report.html.settings import UNITS, settings_of

_MOST_TARGETS = 8  # named in a sentence


def harden_page(
    report: Mapping[str, Any],
    material: Material | None,
    scan: ScanOutcome | None = None,
) -> bytes:
    """A harden report as one HTML page that loads nothing and runs nothing.

    Args:
        report: As ``HardenResult.save`` returns it.
        material: What is drawn besides its figures; without it the page has tables alone.
        scan: What a scan of the original found; None for no scan.

    Returns:
        UTF-8; the same for the same arguments.
    """
    names = report["clean_set"]["class_names"]
    view = view_of(None if material is None else material.inputs)
    benchmark = report["benchmark"]
    null = None if material is None else material.null
    detector = report["detector"]
    figures = {
        "scores": None,
        "p_values": None,
        "latency": latency_figure("latency", report["latency"]) if report["latency"] else None,
        "attacks": attacks_figure("attacks", benchmark["attacks"])
        if benchmark["attacks"]
        else None,
    }
    if null is not None and detector is not None:
        unit = UNITS[detector["score"]]
        threshold = detector["threshold_score"]
        figures["scores"] = score_figure("scores", null.scores, threshold, unit=unit)
        figures["p_values"] = p_value_curve("p-values", null)
    rows, left_out = _map(report, material)
    return render(
        "harden.html.j2",
        report=report,
        verdict=_verdict(report, scan),
        first_batch=min((entry["batch_size"] for entry in report["latency"]), default=1),
        gates=gate_rows(report["gates"]),
        figures=figures,
        map=rows,
        connections_left_out=left_out,
        odd=cards(None if material is None else material.odd, view, names),
        seen=view is not None,
        scan=None if scan is None else _scan(scan, view, names),
        settings=settings_of(report),
        unit=None if detector is None else UNITS[detector["score"]],
    )


def _verdict(report: Mapping[str, Any], scan: ScanOutcome | None) -> dict[str, Any]:
    """What a reader in a hurry has to know."""
    figures = report["figures"]
    failed = [gate for gate in report["gates"] if not gate["passed"]]
    role = "detector" if figures["detector"] else "hardened"
    told = []
    for name in ("hardened", "detector"):
        if figures[name] is not None:
            told.append(f"the {name} graph {_change(figures['original'], figures[name])}")
    if failed:
        count = "A gate failed" if len(failed) == 1 else f"{len(failed)} gates failed"
        head = f"{count}: do not deploy as it is"
    else:
        head = "Hardened, and all gates hold"
    samples = report["clean_set"]["calibration"]
    lines = [f"On {samples} clean samples that bounds were not learned on, {'; '.join(told)}."]
    detector = report["detector"]
    if detector is not None:
        lines.append(
            f"The detector flags {percent(detector['false_positive_rate_measured'])} of "
            f"{detector['null_samples']} clean samples; "
            f"{percent(detector['false_positive_rate_requested'])} were asked for."
        )
    labelled = report["clean_set"]["has_labels"]
    kept = "accuracy" if labelled else "agreement with the original"
    lines.append(
        f"Gates are on {kept} and sound numbers. Whether an attack on this model is stopped "
        "was not measured."
    )
    if scan is not None and scan.suspected:
        targets = _targets(scan, report["clean_set"]["class_names"])
        verb = "looks like the target" if len(scan.suspected) == 1 else "look like targets"
        lines.append(f"A scan finds the original suspicious: {targets} {verb} of a backdoor.")
        head += "; the original looks backdoored"
    if scan is not None and not scan.judged:
        lines.append("A scan of the original came to no verdict.")
    if not labelled:
        lines.append("The samples have no labels: what is compared is the original's decisions.")
    return {"head": head, "lines": lines, "failed": failed, "role": role}


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if before["accuracy"] is None or after["accuracy"] is None:
        return f"decides {percent(after['agreement'])} as the original does"
    drop = before["accuracy"] - after["accuracy"]
    told = f"is right on {percent(after['accuracy'])}"
    if abs(drop) < 5e-5:
        return f"{told}, as the original"
    return f"{told}, {points(abs(drop))} {'less' if drop > 0 else 'more'} than the original"


def _map(report: Mapping[str, Any], material: Material | None) -> tuple[list[dict[str, Any]], int]:
    """A row for the input, each activation and the logits; and connections that are not drawn."""
    sites = {site["tensor"]: site for site in report["sites"]}
    uncovered = {entry["tensor"]: entry for entry in report["uncovered"]}
    model = report["model"]
    order: Sequence[str] = (model["input"], *sites, *uncovered, model["logits"])
    slices: list[Any] = [None] * len(order)
    left_out = 0
    if material is not None:
        flow = material.flow
        order = flow.tensors
        slices, left_out = gutter(flow, [name not in uncovered for name in order])
    most = max((site["share_above"] for site in report["sites"]), default=0.0) or 1.0
    rows = []
    for index, name in enumerate(order):
        site = sites.get(name)
        detail = None if material is None else material.sites.get(name)
        row = _row(name, site, uncovered.get(name), slices[index])
        if detail is not None:
            row["strip"] = bounds_strip(f"strip-{index}", detail)
            row["most_touched"] = float(detail.touched.max())
        if site is not None:
            row["meter"] = site["share_above"] / most
        rows.append(row)
    rows[0]["end"], rows[-1]["end"] = "input", "logits"
    placed = set(order)
    # Activations on no way from the input to the logits come last.
    rows += [_row(name, None, uncovered[name], None) for name in uncovered if name not in placed]
    return rows, left_out


def _row(name: str, site: Any, uncovered: Any, slice_of_flow: Any) -> dict[str, Any]:
    return {
        "name": name,
        "end": None,
        "site": site,
        "uncovered": uncovered,
        "slice": slice_of_flow,
        "strip": None,
        "meter": 0.0,
        "most_touched": None,
    }


def _targets(scan: ScanOutcome, names: Sequence[str]) -> str:
    told = [class_name(index, names) for index in scan.suspected[:_MOST_TARGETS]]
    left = len(scan.suspected) - len(told)
    return ", ".join(told) + (f" and {left} more" if left else "")


def _scan(scan: ScanOutcome, view: View | None, names: Sequence[str]) -> dict[str, Any]:
    """What a scan found, with pictures of it."""
    return {
        "judged": scan.judged,
        "suspected": len(scan.suspected),
        "targets": _targets(scan, names),
        "triggers": [_trigger(trigger, view, names) for trigger in scan.triggers],
    }


def _trigger(trigger: RecoveredTrigger, view: View | None, names: Sequence[str]) -> dict[str, Any]:
    """A recovered trigger with its pictures."""
    found: dict[str, Any] = {
        "name": class_name(trigger.class_index, names),
        "index": trigger.class_index,
        "flipped": trigger.flipped_share,
        "size": trigger.size,
        "suspected": trigger.suspected,
        "note": trigger.note,
        "pattern": None,
        "gain": 1.0,
        "samples": [],
    }
    if view is None:
        return found
    gain = view.gain(trigger.pattern)
    found |= {"pattern": view.difference(trigger.pattern, gain), "gain": gain}
    for index, (before, after) in enumerate(zip(trigger.before, trigger.after, strict=True)):
        delta = after.astype("float64") - before.astype("float64")
        decided = [
            None if classes is None else class_name(int(classes[index]), names)
            for classes in (trigger.decided_before, trigger.decided_after)
        ]
        found["samples"].append(
            {
                "before": view.picture(before),
                "after": view.picture(after),
                "difference": view.difference(delta, gain),
                "was": decided[0],
                "is": decided[1],
            }
        )
    return found
