"""The page of a verification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmbm_onnx.evaluation.details import Details
from mmbm_onnx.report.html.pictures import view_of
from mmbm_onnx.report.html.render import cards, gate_rows, percent, render
from mmbm_onnx.report.html.score_figures import p_value_figure, roc_figure, score_figure


def verify_page(report: Mapping[str, Any], details: Details | None) -> bytes:
    """A verify report as one HTML page that loads nothing and runs nothing.

    Args:
        report: ``VerifyResult.to_dict()``.
        details: What is drawn besides its figures; without it the page has tables alone.

    Returns:
        UTF-8; the same for the same arguments.
    """
    measured = report["measurements"]
    figures: dict[str, Any] = dict.fromkeys(("scores", "p_values", "roc"))
    scores = None if details is None else details.scores
    if scores is not None:
        figures["scores"] = score_figure(
            "scores", scores.clean, scores.threshold, attacked=scores.attacked
        )
        figures["p_values"] = p_value_figure("p-values", scores.clean_p, scores.attacked_p)
        numbers = not (np.isnan(scores.clean).any() or np.isnan(scores.attacked).any())
        if scores.attacked.size and numbers:
            auc = measured["detector"]["roc_auc"]
            figures["roc"] = roc_figure("roc", scores.clean, scores.attacked, scores.threshold, auc)
    class_names = () if details is None else details.inputs.class_names
    view = view_of(None if details is None else details.inputs)
    return render(
        "verify.html.j2",
        report=report,
        measured=measured,
        verdict=_verdict(report),
        gates=gate_rows(report["gates"]),
        figures=figures,
        threshold=None if scores is None else scores.threshold,
        odd=cards(None if details is None else details.odd, view, class_names),
        attacked=cards(None if details is None else details.triggered, view, class_names),
        seen=view is not None,
    )


def _verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    measured = report["measurements"]
    failed = [gate for gate in report["gates"] if not gate["passed"]]
    role = "detector" if measured["detector"] else "hardened"
    before, after = measured["original"], measured[role]
    if failed:
        count = "A gate failed" if len(failed) == 1 else f"{len(failed)} gates failed"
        head = f"{count}: do not deploy as it is"
    else:
        head = "Verified: all gates hold"
    lines = []
    if after is not None:
        name = f"the {role} graph" if role == "hardened" else "the detector"
        kept = after["accuracy"] if after["accuracy"] is not None else after["agreement"]
        how = "is right on" if after["accuracy"] is not None else "decides as the original on"
        was = ""
        if after["accuracy"] is not None:
            was = f", the original on {percent(before['accuracy'])}"
        lines.append(f"Of {measured['samples']} clean samples {name} {how} {percent(kept)}{was}.")
        if measured["triggered"]:
            lines.append(
                f"The attack succeeds on {percent(before['attack_success_rate'])} of "
                f"{measured['triggered']} triggered samples with the original, and on "
                f"{percent(after['attack_success_rate'])} with {name}, which answers "
                f"{percent(after['robust_accuracy'])} of them with their true class."
            )
            alone = measured["hardened"]
            if role == "detector" and alone is not None:
                rate = percent(alone["attack_success_rate"])
                lines.append(f"With the hardened graph alone it succeeds on {rate}.")
            if not any(gate["name"].endswith("attack_success_rate") for gate in report["gates"]):
                lines.append(
                    "No gate is on that: --max-attack-success-rate sets a limit that it must keep."
                )
        else:
            lines.append(
                "No triggered samples were given: whether an attack is stopped was not measured."
            )
    return {"head": head, "lines": lines, "failed": failed, "role": role}
