"""What the command line prints of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmbm_onnx.report.layout import number, pairs, percent, shorten, table

_MOST_ROWS = 12
_HEADS = {"l2": "spread", "l1": "gathered", "waves": "waves"}


def scan_summary(report: Mapping[str, Any]) -> str:
    """A scan report (the dict) for people: verdict first."""
    parts = [_verdict(report), _head(report), _tests(report), _classes(report)]
    return "\n\n".join(part for part in parts if part)


def _verdict(report: Mapping[str, Any]) -> str:
    if not report["judged"]:
        return (
            f"not judged: {report['model']['classes']} classes are too few to hold one against the "
            "others; look at the patterns (--patterns) yourself"
        )
    if not report["suspicious"]:
        return (
            "nothing found: no class stands apart from the others (which does not show that there "
            "is no backdoor)"
        )
    lines = [f"SUSPICIOUS {finding['message']}" for finding in report["findings"]]
    lines.append("do not deploy this model as it is; see `mmbm-onnx harden`")
    return "\n".join(lines)


def _head(report: Mapping[str, Any]) -> str:
    model, clean = report["model"], report["clean_set"]
    seconds = sum(report["seconds"].values())
    samples = (
        "none: margins from noise alone, which tell little"
        if clean is None
        else f"{clean['samples']} samples: {clean['fit']} to make patterns of, "
        f"{clean['calibration']} to try them on"
    )
    return pairs(
        [
            (
                "model",
                f"{shorten(model['path'] or 'in memory', 48)} (opset {model['opset']}, "
                f"{model['classes']} classes)",
            ),
            ("clean set", samples),
            (
                "scan",
                f"seed {report['seed']}, {seconds:.1f} s on {report['execution']['device']}",
            ),
        ]
    )


def _tests(report: Mapping[str, Any]) -> str:
    rows = [
        (
            _HEADS.get(test["name"], "margin"),
            number(test["score"]),
            number(test["threshold"]),
            "" if test["decides"] else "told, does not decide",
        )
        for test in report["tests"]
    ]
    return table(("test", "score", "suspicious from", ""), rows, "lrrl")


def _classes(report: Mapping[str, Any]) -> str:
    """The classes most apart, each with its smallest patterns and what they do."""
    norms = [name for name in _HEADS if any(test["name"] == name for test in report["tests"])]
    entries = sorted(report["classes"], key=lambda entry: -_most(entry))
    shown = entries[:_MOST_ROWS] if len(entries) > _MOST_ROWS else report["classes"]
    rows = []
    for entry in shown:
        name = "" if entry["name"] is None else shorten(entry["name"], 24)
        cells = [str(entry["class"]), name]
        for norm in norms:
            found = entry["patterns"].get(norm)
            cells += (
                ["-", "-"]
                if found is None
                else [f"{found['size']:.4f}", percent(found["flipped_share"])]
            )
        rows.append((*cells, number(entry["margin"])))
    headers = ["class", "", *(head for norm in norms for head in (_HEADS[norm], "flips")), "margin"]
    text = table(headers, rows, "ll" + "rr" * len(norms) + "r")
    left = len(entries) - len(shown)
    return text + (f"\n... {left} more classes, less apart" if left else "")


def _most(entry: Mapping[str, Any]) -> float:
    """The largest score of a class; without patterns, its margin."""
    found = [one["score"] for one in entry["patterns"].values() if one is not None]
    known = [score for score in found if score is not None]
    return float(max(known)) if known else float(entry["margin"]) * 1e-9
