"""What the forms of the detector lose, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.defence import attacks
from benchmarks.detectors.forms import CLEAN, FORMS, FULL

_COLUMNS = (
    "ASR",
    "DER",
    "loses",
    "worst",
    "TPR",
    "loses",
    "worst",
    "fall of ACC, mean",
    "worst",
    "FPR, mean",
    "lowest",
    "highest",
    "go on",
)


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """One row per form: over attackers that do not know the method (ASR, DER, TPR), and over all
    victims (ACC, FPR, and who goes on).

    Forms in int8 are of the victims that take them, and again of those where the branch decides
    98 % of the calibration part as the hardened graph does.
    """
    lines = [
        "# The detector's forms",
        "",
        f"{len(records)} victims of `benchmarks.defence`, {CLEAN} clean samples, the same bounds "
        "in all forms; percent. By `python -m benchmarks.detectors`. ASR, DER and TPR are means "
        "over attackers that do not know the method. *Loses*: against one stage in float on the "
        "same victims, mean and worst. *Go on*: share of clean test samples that the second stage "
        "runs for. (A folded branch, the default, is the float one but for the last bits.)",
        "",
        f"| form | victims | {' | '.join(_COLUMNS)} |",
        "|---" * (len(_COLUMNS) + 2) + "|",
    ]
    for name in FORMS:
        lines.append(_row(name, [(record, record[name]) for record in records]))
        if name.endswith("int8"):
            good = [(record, record[name]) for record in records if _good(record[name])]
            lines.append(_row(f"{name} that decides 98 % as the hardened graph", good))
    refused = {
        (record["victim"], reason)
        for record in records
        for name in FORMS
        if (reason := record[name].get("refused"))
    }
    if refused:
        lines += ["", "Not made:", ""]
        lines += [f"- {victim}: {reason}" for victim, reason in sorted(refused)]
    return "\n".join(lines) + "\n"


def _good(found: Mapping[str, Any]) -> bool:
    return "refused" not in found and not found["poor"]


def _row(name: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    there = [(record, found) for record, found in pairs if "refused" not in found]
    attacked = [
        (record, found)
        for record, found in there
        if record["attack"] != attacks.CLEAN and not record["attack"].startswith("adaptive")
    ]
    if not attacked:
        return f"| {name} | {len(there)} | {' | '.join('-' for _ in _COLUMNS)} |"
    falls = [record["original"]["acc"] - found["acc"] for record, found in there]
    rates = [found["fpr"] for _, found in there]
    odd = [found["odd"] for _, found in there if "odd" in found]
    values = [fmean(found["asr"] for _, found in attacked)]
    for measure in ("der", "tpr"):
        lost = [record[FULL][measure] - found[measure] for record, found in attacked]
        values += [fmean(found[measure] for _, found in attacked), fmean(lost), max(lost)]
    values += [fmean(falls), max(falls), fmean(rates), min(rates), max(rates)]
    cells = [f"{value:.1f}" for value in values]
    cells.append(f"{fmean(odd):.1f}" if odd else "all")
    return f"| {name} | {len(there)} | {' | '.join(cells)} |"
