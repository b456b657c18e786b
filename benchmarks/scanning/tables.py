"""What scans found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.defence import attacks
from mmbm_onnx.scanning.judgement import DECIDING, MARGIN_THRESHOLD, THRESHOLD

_TESTS = {
    "verdict": "**the verdict**: spread or gathered",
    "l2": "spread (L2)",
    "l1": "gathered (L1)",
    "waves": "waves, told alone",
    "margin": "margin from noise (MM-BD), told alone",
}
_EVERY_CLASS = "badnets-all-to-all"
"""Whose backdoor leads to all classes, so that none can be named wrongly."""
_SOURCE_SPECIFIC = ("badnets-one-to-one", _EVERY_CLASS)


def render(records: Sequence[dict[str, Any]]) -> str:
    """Tables of all networks that were scanned, a page by themselves."""
    return f"# What `scan` finds\n\n{for_readers(records)}\n"


def for_readers(records: Sequence[dict[str, Any]]) -> str:
    """The same for a page that has a heading already."""
    clean = [record for record in records if record["attack"] == attacks.CLEAN]
    attacked = [record for record in records if record["attack"] != attacks.CLEAN]
    parts = [
        f"{len(attacked)} networks with a backdoor, {len(clean)} without, 500 clean samples. "
        "ROC-AUC is of the largest score of any class; the other columns are shares of networks "
        f"in percent, at the threshold {THRESHOLD:g} for patterns and a p-value of 5 % for "
        "margins. The threshold, and which norms decide, were chosen by the same clean networks.",
        _tests(attacked, clean),
        _named(attacked),
        _by_attack(attacked),
    ]
    return "\n\n".join(parts)


def score_of(record: dict[str, Any], test: str) -> float:
    """The largest score of any class; 0 where it could not be told."""
    names = DECIDING if test == "verdict" else (test,)
    return max(record["scores"][name] or 0.0 for name in names)


def auc(high: Sequence[float], low: Sequence[float]) -> float:
    """The chance that one of ``high`` is above one of ``low``, ties counting half."""
    a, b = np.asarray(high)[:, None], np.asarray(low)[None]
    return float((a > b).mean() + (a == b).mean() / 2)


def _tests(attacked: Sequence[dict[str, Any]], clean: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| test | ROC-AUC | the same without attacks on single classes | backdoored, found | "
        "clean, suspected |",
        "|---|---|---|---|---|",
    ]
    general = [one for one in attacked if one["attack"] not in _SOURCE_SPECIFIC]
    for name, text in _TESTS.items():
        all_, some, low = (
            [score_of(record, name) for record in records] for records in (attacked, general, clean)
        )
        shares = " | ".join(_share(np.asarray(part) >= _limit(name)) for part in (all_, low))
        lines.append(f"| {text} | {auc(all_, low):.2f} | {auc(some, low):.2f} | {shares} |")
    seconds = np.mean([record["seconds"] for record in (*attacked, *clean)])
    return "\n".join([*lines, "", f"A scan took {seconds:.0f} seconds on average, one thread."])


def _named(attacked: Sequence[dict[str, Any]]) -> str:
    """Whether what is suspected are the attacker's classes; records of old do not say."""
    told = "Found means that some class was suspected"
    found = [
        record
        for record in attacked
        if score_of(record, "verdict") >= THRESHOLD and record["attack"] != _EVERY_CLASS
    ]
    known = [record for record in found if "suspected" in record]
    if not known:
        return f"{told}. Whether it is the attacker's was not measured."
    first = sum(record["suspected"][:1] == [t] for record in known for t in record["targets"])
    some = sum(bool({*record["suspected"]} & {*record["targets"]}) for record in known)
    return (
        f"{told}. Of the {len(found)} that the verdict finds, not counting attacks toward every "
        f"class, {len(known)} have a record of which classes were suspected: {some} name one of "
        f"the attacker's, {first} before all others."
    )


def _by_attack(attacked: Sequence[dict[str, Any]]) -> str:
    names = list(_TESTS)
    lines = [
        f"| attack | networks | {' | '.join(_TESTS[name] for name in names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for attack in dict.fromkeys(record["attack"] for record in attacked):
        own = [record for record in attacked if record["attack"] == attack]
        found = [str(sum(score_of(one, name) >= _limit(name) for one in own)) for name in names]
        lines.append(f"| {attack} | {len(own)} | {' | '.join(found)} |")
    return "\n".join(lines)


def _limit(test: str) -> float:
    return MARGIN_THRESHOLD if test == "margin" else THRESHOLD


def _share(which: Any) -> str:
    return f"{100 * float(np.mean(which)):.0f}" if len(which) else "-"
