"""What scans found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.defence import attacks
from benchmarks.scanning.networks import FRESH
from mmbm_onnx.scanning.judgement import MARGIN_THRESHOLD, THRESHOLD

_TESTS = {
    "patterns": "patterns, all norms (decides)",
    "l2": "faint all over",
    "l1": "in few places",
    "waves": "of few waves",
    "margin": "margin from noise (MM-BD)",
}
_SOURCE_SPECIFIC = ("badnets-one-to-one", "badnets-all-to-all")


def render(records: Sequence[dict[str, Any]]) -> str:
    """Tables of all networks that were scanned, a page by themselves."""
    return f"# What `scan` finds\n\n{for_readers(records)}\n"


def for_readers(records: Sequence[dict[str, Any]]) -> str:
    """The same for a page that has a heading already."""
    clean = [record for record in records if record["attack"] == attacks.CLEAN]
    attacked = [record for record in records if record["attack"] != attacks.CLEAN]
    fresh = [record for record in clean if record["seed"] in FRESH]
    parts = [
        f"{len(attacked)} networks with a backdoor, {len(clean)} without, 500 clean samples. "
        "ROC-AUC is of the largest score of any class; the other columns are shares of networks "
        f"in percent, at the threshold {THRESHOLD:g} for patterns and a p-value of 5 % for "
        f"margins. The threshold was chosen by clean networks, but not by the {len(fresh)} fresh "
        "ones.",
        _tests(attacked, clean, fresh),
        _by_attack(attacked),
    ]
    return "\n\n".join(parts)


def auc(high: Sequence[float], low: Sequence[float]) -> float:
    """The chance that one of ``high`` is above one of ``low``, ties counting half."""
    a, b = np.asarray(high)[:, None], np.asarray(low)[None]
    return float((a > b).mean() + (a == b).mean() / 2)


def _tests(
    attacked: Sequence[dict[str, Any]],
    clean: Sequence[dict[str, Any]],
    fresh: Sequence[dict[str, Any]],
) -> str:
    lines = [
        "| test | ROC-AUC | the same without attacks on single classes | backdoored, found | "
        "clean, suspected | of these, fresh |",
        "|---|---|---|---|---|---|",
    ]
    general = [one for one in attacked if one["attack"] not in _SOURCE_SPECIFIC]
    for name, text in _TESTS.items():
        limit = MARGIN_THRESHOLD if name == "margin" else THRESHOLD
        all_, some, low, new = (
            [record["scores"][name] or 0.0 for record in records]
            for records in (attacked, general, clean, fresh)
        )
        shares = " | ".join(_share(np.asarray(part) >= limit) for part in (all_, low, new))
        lines.append(f"| {text} | {auc(all_, low):.2f} | {auc(some, low):.2f} | {shares} |")
    seconds = np.mean([record["seconds"] for record in (*attacked, *clean)])
    return "\n".join([*lines, "", f"A scan took {seconds:.0f} seconds on average, one thread."])


def _by_attack(attacked: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| attack | networks | found | with the right class first | by margins |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(record["attack"] for record in attacked):
        own = [record for record in attacked if record["attack"] == name]
        found = [record for record in own if record["scores"]["patterns"] >= THRESHOLD]
        right = [record for record in found if record["likeliest"] in record["targets"]]
        margins = [record for record in own if record["scores"]["margin"] >= MARGIN_THRESHOLD]
        lines.append(f"| {name} | {len(own)} | {len(found)} | {len(right)} | {len(margins)} |")
    return "\n".join(lines)


def _share(which: Any) -> str:
    return f"{100 * float(np.mean(which)):.0f}" if len(which) else "-"
