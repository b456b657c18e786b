"""What the command line prints: a hardening, a verification, an inspection, at a glance."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmbm_onnx.evaluation.bench import BenchResult, machine
from mmbm_onnx.evaluation.figures import Figures
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.evaluation.verification import VerifyResult
from mmbm_onnx.report.benchmark import STOPPED
from mmbm_onnx.report.inspection import Inspection
from mmbm_onnx.report.layout import NAME_WIDTH, broken, number, pairs, percent, shorten, table

ROLES = ("original", "hardened", "detector")
_LONG = 72
_WIDTH = 80
_BENCHMARK = (
    "attacks of our benchmark (networks of its own, 500 samples, default settings); stopped:\n"
    "at most 10 % of triggered samples get through, on every network; (mean, worst) of the others"
)


def gates_table(gates: Sequence[Gate | Mapping[str, Any]]) -> str:
    """Every gate with its verdict; below them, why those that failed did."""
    entries = [gate.to_dict() if isinstance(gate, Gate) else gate for gate in gates]
    rows = [
        ("PASS" if gate["passed"] else "FAIL", gate["name"], _value(gate), _limit(gate))
        for gate in entries
    ]
    lines = [table(("", "gate", "value", "limit"), rows, "llrl")]
    lines += [
        f"FAIL {gate['name']}: {gate['message']}"
        for gate in entries
        if not gate["passed"] and gate["message"]
    ]
    return "\n".join(lines)


def harden_summary(
    report: Mapping[str, Any],
    *,
    report_path: Path | None = None,
    html_path: Path | None = None,
) -> str:
    """A harden report (the dict) for people, with where it was written itself, and its page."""
    model, clean, method = report["model"], report["clean_set"], report["method"]
    execution = report["execution"]
    seconds = sum(report["seconds"].values())
    labels = "labelled" if clean["has_labels"] else "without labels"
    head = pairs(
        [
            (
                "model",
                f"{shorten(model['path'] or 'in memory', 48)} (opset {model['opset']}, "
                f"{model['classes']} classes)",
            ),
            (
                "clean set",
                f"{clean['samples']} samples, {labels}: {clean['fit']} to learn, "
                f"{clean['calibration']} to calibrate",
            ),
            (
                "method",
                f"{method['name']}, per {method['granularity']}, seed {report['seed']}, "
                f"{seconds:.1f} s on {execution['device']}",
            ),
            (
                "covered",
                _covered(len(report["sites"]), len(report["uncovered"])) + _folded(report["sites"]),
            ),
            ("detector", _detector_line(report["detector"])),
            ("branch", _shadow_line(report["detector"])),
        ]
    )
    parts = [head, *_benchmark(report["benchmark"]), _scores_table(report)]
    if report["gates"]:
        parts.append(gates_table(report["gates"]))
    written = [(entry["role"], entry["path"]) for entry in report["files"]]
    written += [("weights", entry["data"]) for entry in report["files"] if entry["data"]]
    if report_path is not None:
        written.append(("report", str(report_path)))
    if html_path is not None:
        written.append(("page", str(html_path)))
    if written:
        parts.append("written\n" + _indented(pairs(written)))
    return "\n\n".join(parts)


def verify_summary(
    result: VerifyResult, *, report_path: Path | None = None, html_path: Path | None = None
) -> str:
    """A verification for people, with where its report and its page were written."""
    measured = result.measurements
    figures = {"original": measured.original}
    if measured.hardened is not None:
        figures["hardened"] = measured.hardened
    if measured.detector is not None:
        figures["detector"] = measured.detector
    columns: list[tuple[str, str]] = [("accuracy", "accuracy"), ("agreement", "agreement")]
    if measured.triggered:
        columns += [("ASR", "attack_success_rate"), ("RA", "robust_accuracy")]
        columns += [("DER", "defense_effectiveness")]
    if measured.detector is not None:
        columns += [("flagged", "false_positive_rate")]
        if measured.triggered:
            columns += [("TPR", "true_positive_rate")]
    labels = "labelled" if measured.labelled else "without labels"
    head = pairs(
        [
            ("clean set", f"{measured.samples} samples, {labels}"),
            (
                "triggered",
                f"{measured.triggered} samples of other classes" if measured.triggered else "",
            ),
            ("providers", ", ".join(measured.providers)),
        ]
    )
    parts = [head, _figures_table(figures, columns), gates_table(result.gates)]
    written = [(name, str(p)) for name, p in (("report", report_path), ("page", html_path)) if p]
    if written:
        parts.append("written\n" + _indented(pairs(written)))
    verdict = "all gates hold" if result.passed else "a gate failed"
    return "\n\n".join([*parts, f"{'PASS' if result.passed else 'FAIL'}: {verdict}"])


def bench_summary(result: BenchResult) -> str:
    """What graphs cost, for people."""
    first = result.files[0].path
    kind = machine()
    head = pairs(
        [
            ("original", shorten(first, 60)),
            ("machine", f"{kind['processor']}, {kind['processors']} processors, {kind['system']}"),
            ("providers", ", ".join(result.providers)),
        ]
    )
    rows = [
        (
            shorten(timing.latency.graph),
            str(timing.latency.batch_size),
            "auto" if timing.threads is None else str(timing.threads),
            f"{1000 * timing.latency.seconds:.2f} ms",
            f"{timing.latency.ratio:.3f} x",
            f"{timing.latency.ratio_low:.3f} to {timing.latency.ratio_high:.3f}",
            str(timing.latency.rounds),
        )
        for timing in result.timings
    ]
    headers = ("graph", "batch", "threads", "time", "ratio", "quartiles", "rounds")
    parts = [head, table(headers, rows, "lrrrrrr")]
    if any(file.peak_memory is not None for file in result.files):
        sizes = [
            (
                shorten(file.path),
                "-" if file.peak_memory is None else f"{file.peak_memory / 2**20:.0f} MiB",
                "-" if file.memory_ratio is None else f"{file.memory_ratio:.2f} x",
            )
            for file in result.files
        ]
        parts.append(table(("graph", "peak memory", "ratio"), sizes, "lrr"))
    if result.max_ratio is not None:
        verdict = "PASS" if result.passed else "FAIL"
        parts.append(
            f"{verdict}: the worst ratio is {result.worst_ratio:.3f}, at most {result.max_ratio:g}"
        )
    return "\n\n".join(parts)


def inspection_summary(inspection: Inspection, *, whole: bool = False) -> str:
    """An inspection for people.

    Args:
        inspection: What was found.
        whole: Whether long names are left whole, for a reader that wraps no lines.
    """
    width = sys.maxsize if whole else NAME_WIDTH
    found = inspection.interface
    origin = inspection.provenance
    head = pairs(
        [
            ("model", shorten(inspection.path, max(_LONG, width))),
            ("sha256", inspection.sha256),
            ("format", f"IR {inspection.ir_version}, opset {inspection.opset}"),
            ("producer", shorten(inspection.producer, _LONG)),
            ("nodes", str(inspection.nodes)),
            ("problem", f"{inspection.problem}; harden refuses it" if inspection.problem else ""),
            (
                "input",
                ""
                if found is None
                else f"{shorten(found.input, width)} {found.input_dtype.name} "
                f"{_shape(found.input_shape)}",
            ),
            (
                "embedded",
                "" if found is None or found.start is None else shorten(found.start, width),
            ),
            (
                "output",
                ""
                if found is None
                else f"{shorten(found.output, width)}, {found.classes} classes, {found.head}",
            ),
            ("logits", "" if found is None else shorten(found.logits, width)),
            ("inlined", ", ".join(inspection.inlined)),
            ("covered", _covered(len(inspection.sites), len(inspection.uncovered))),
        ]
    )
    parts = [head]
    if origin:
        parts.append(f"already hardened by mmbm-onnx\n{_indented(_entries(origin))}")
    if inspection.sites:
        rows = [
            (
                shorten(site.tensor, width),
                site.kind,
                site.dtype.name,
                "-" if site.channels is None else str(site.channels),
                "-" if site.channel_axis is None else str(site.channel_axis),
                number(site.upper),
            )
            for site in inspection.sites
        ]
        headers = ("takes a bound", "kind", "dtype", "channels", "axis", "limit")
        parts.append(table(headers, rows, "lllrrr"))
    if inspection.uncovered:
        lines = [
            (shorten(item.tensor, width), item.op_type, item.reason)
            for item in inspection.uncovered
        ]
        parts.append(table(("takes none", "kind", "reason"), lines, "lll"))
    return "\n\n".join(parts)


def _scores_table(report: Mapping[str, Any]) -> str:
    latency = {(entry["graph"], entry["batch_size"]): entry for entry in report["latency"]}
    sizes = sorted({size for _, size in latency})
    rows = []
    for role in ROLES:
        scores = report["figures"][role]
        if scores is None:
            continue
        times = [
            f"{latency[role, size]['ratio']:.2f} x" if (role, size) in latency else "-"
            for size in sizes
        ]
        rows.append((role, percent(scores["accuracy"]), percent(scores["agreement"]), *times))
    headers = ("calibration", "accuracy", "agreement", *(f"time, batch {size}" for size in sizes))
    return table(headers, rows, "l" + "r" * (len(headers) - 1))


def _figures_table(figures: Mapping[str, Figures], columns: Sequence[tuple[str, str]]) -> str:
    rows = [
        (role, *(percent(getattr(values, field)) for _, field in columns))
        for role, values in figures.items()
    ]
    headers = ("graph", *(name for name, _ in columns))
    return table(headers, rows, "l" + "r" * len(columns))


def _folded(sites: Sequence[Mapping[str, Any]]) -> str:
    count = sum(site["folded"] for site in sites)
    return f", bounds of {count} folded into weights" if count else ""


def _detector_line(detector: Mapping[str, Any] | None) -> str:
    if detector is None:
        return ""
    return (
        f"flags {percent(detector['false_positive_rate_measured'])} of clean samples "
        f"({detector['measured_on']}; asked for "
        f"{percent(detector['false_positive_rate_requested'])}), {detector['null']} null"
    )


def _shadow_line(detector: Mapping[str, Any] | None) -> str:
    """What the bounded branch is, and why, where it is not folded, as it usually is."""
    if detector is None:
        return ""
    reason = detector["shadow_reason"]
    if reason is not None:
        return f"float: {shorten(reason, 76)}"
    return "" if detector["shadow"] == "folded" else str(detector["shadow"])


def _benchmark(benchmark: Mapping[str, Any]) -> list[str]:
    """What each graph stops of the benchmark's attacks, and how much it leaves of the others."""
    if not benchmark["attacks"]:
        return []
    rates = {entry["attack"]: entry for entry in benchmark["attacks"]}
    rows: list[tuple[str, str]] = []
    for entry in benchmark["graphs"]:
        graph = entry["graph"]
        missed = [
            f"{name} ({100 * rates[name][graph]:.0f}, {_over(rates[name][f'{graph}_worst'])})"
            for name in entry["missed"]
        ]
        for verb, names in (("stops", entry["stopped"]), ("misses", missed)):
            lines = broken(names, _WIDTH) or ["none"]
            rows += zip([f"{graph} {verb}", *[""] * (len(lines) - 1)], lines, strict=True)
    return [f"{_BENCHMARK}\n{_indented(pairs(rows))}"]


def _over(rate: float) -> str:
    """A rate above that of stopped attacks in percent, so that it is seen to be above."""
    whole = f"{100 * rate:.0f}"
    return whole if int(whole) > 100 * STOPPED else f"{100 * rate:.1f}"


def _covered(sites: int, uncovered: int) -> str:
    return f"{sites} of {sites + uncovered} activations"


def _value(gate: Mapping[str, Any]) -> str:
    return _with_unit(gate["value"], gate["unit"])


def _limit(gate: Mapping[str, Any]) -> str:
    if gate["direction"] == "holds":
        return ""
    return f"{gate['direction'].replace('_', ' ')} {_with_unit(gate['limit'], gate['unit'])}"


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return percent(value) if unit == "fraction" else number(value)


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"


def _entries(entries: Mapping[str, str]) -> str:
    return pairs([(shorten(key, 24), shorten(value, 64)) for key, value in entries.items()])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
