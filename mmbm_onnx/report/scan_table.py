"""What the command line prints of a scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmbm_onnx.report.layout import number, pairs, percent, shorten, table
from mmbm_onnx.report.scan_report import NOT_JUDGED

_MOST_ROWS = 12
_HEADS = {"l2": "spread", "l1": "gathered", "waves": "waves"}


def scan_summary(report: Mapping[str, Any]) -> str:
    """A scan report (the dict) for people: verdict first."""
    parts = [_verdict(report), _head(report), _tests(report), _classes(report)]
    return "\n\n".join(part for part in parts if part)


def _verdict(report: Mapping[str, Any]) -> str:
    if not report["judged"]:
        return f"NOT JUDGED {NOT_JUDGED}"
    if not report["suspicious"]:
        return (
            "nothing found: no class stands apart from the others (which does not show that there "
            "is no backdoor)"
        )
    lines = [f"SUSPICIOUS {finding['message']}" for finding in report["findings"]]
    lines.append(
        "best not deploy this model; where it must be, deploy the detector that `mmbm-onnx harden` "
        "writes, and treat flagged answers as suspect"
    )
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
            _HEADS.get(test["name"], test["name"]),
            number(test["score"]),
            number(test["threshold"]),
            "decides" if test["decides"] else "",
        )
        for test in report["tests"]
    ]
    return table(("test", "score", "suspicious from", ""), rows, "lrrl")


def _classes(report: Mapping[str, Any]) -> str:
    """The classes most apart, each with its smallest patterns and what they do."""
    norms = list(report["classes"][0]["patterns"])
    entries = sorted(report["classes"], key=_most, reverse=True)
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
        rows.append((*cells, number(entry["score"]), number(entry["margin"])))
    parts = (part for norm in norms for part in (_HEADS[norm], "flips"))
    headers = ["class", "", *parts, "score", "margin"]
    text = table(headers, rows, "ll" + "rr" * len(norms) + "rr")
    left = len(entries) - len(shown)
    return text + (f"\n... {left} more classes, less apart" if left else "")


def _most(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Order of classes: by score, then by margin."""
    score = entry["score"]
    return (-math.inf if score is None else float(score)), float(entry["margin"])
