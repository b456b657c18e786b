"""Records to sentences: what README and the documentation say about the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.defence import attacks, tables
from benchmarks.defence.tables import DEFAULT, Record, falls, mean, of_attacked
from mmbm_onnx.evaluation.quality import Limits

_MUCH = 20.0
"""Percent of triggered samples from which a victim is named."""
_WELL = 80.0
"""Percent of triggered samples below which an attack itself is said to be weak."""
_GATE = 100 * Limits().max_accuracy_drop
"""Points of accuracy that ``harden`` by default lets a graph lose."""
CAPTION = (
    "attack success and defence effectiveness over the attacks that do not know the defence, falls "
    "of accuracy (points) and flagged clean samples (percent) over all victims"
)
_NOUNS = {"fashion": "Fashion-MNIST", "mnist": "MNIST", "shapes": "shapes", "cifar10": "CIFAR-10"}


def of_readme(records: Sequence[Record]) -> str:
    """What the default method's graphs cost and where they fail, and where others do better."""
    whole = tables.whole(records)
    own = tables.of(whole, DEFAULT, "detector")
    if not own:
        return "Nothing measured yet."
    parts = [_cost(own), *(_failures(own, role) for role in ("detector", "hardened"))]
    parts += [_weak(own), *(_better(whole, role) for role in ("detector", "hardened"))]
    parts += [f"By the number of clean samples, {CAPTION}:", of_clean_samples(records)]
    return "\n\n".join(part for part in parts if part)


def of_clean_samples(records: Iterable[Record]) -> str:
    """What the default method is worth with how many clean samples, over attacks that do not know
    the defence; accuracy and flags over all victims."""
    every = [r for r in records if r["method"] == DEFAULT and r["victim"]["share"] is None]
    rows = []
    for size in sorted({r["clean"] for r in every}, reverse=True):
        own = [r for r in every if r["clean"] == size]
        known = [r for r in own if r["victim"]["attack"] in attacks.ATTACKS]
        row = [str(size)]
        for role in ("detector", "hardened"):
            row += [mean([r[role][figure] for r in known]) for figure in ("asr", "der")]
            lost = falls(own, role)
            row.append(f"{fmean(lost):.1f}, {max(lost):.1f}")
            if role == "detector":
                flags = [r[role]["fpr"] for r in own]
                row.append(f"{min(flags):.1f} to {max(flags):.1f}")
        rows.append(row)
    heads = ["clean samples", "detector ASR", "DER", "fall of ACC: mean, worst", "flagged clean"]
    return tables.table([*heads, "hardened ASR", "DER", "fall of ACC: mean, worst"], rows)


def of_held_out(records: Sequence[Record]) -> str:
    """What the default method does on victims that nothing was chosen on."""
    own = tables.of(records, DEFAULT, "detector")
    attacked = of_attacked(own)
    if not attacked:
        return ""
    told = []
    for role in ("detector", "hardened"):
        asr, der = (mean([r[role][figure] for r in attacked]) for figure in ("asr", "der"))
        worst = max(attacked, key=lambda r: r[role]["asr"])
        lost = falls(own, role)
        worst_is = _named([(worst[role]["asr"], worst["victim"])])
        told.append(
            f"the {role} graph has a mean ASR of {asr} and a DER of {der}, the worst being "
            f"{worst_is}, and loses {fmean(lost):.1f} points of accuracy on average and "
            f"{max(lost):.1f} at worst"
        )
    return (
        f"The method was chosen by means over most of these victims. On {len(own)} others, one of "
        "each attack that does not know the defence and one model that is clean, "
        f"{'; '.join(told)}."
    )


def _cost(own: Sequence[Record]) -> str:
    flags = [r["detector"]["fpr"] for r in own]
    clean = [r for r in own if r["victim"]["attack"] == attacks.CLEAN]

    def lost(role: str) -> str:
        every, of_clean = falls(own, role), falls(clean, role)
        told = f"{fmean(every):.1f} points of accuracy on average and {max(every):.1f} at worst"
        if of_clean:
            told += f" ({fmean(of_clean):.1f} and {max(of_clean):.1f} with models that are clean)"
        return told

    over = sum(fall > _GATE for fall in falls(own, "hardened"))
    return (
        f"Of clean samples the detector flagged {min(flags):.1f} to {max(flags):.1f} %; it lost "
        f"{lost('detector')}. The hardened graph lost {lost('hardened')}, and more than the "
        f"{_GATE:.0f} points at which `harden` by default reports a failed gate with {over} of the "
        f"{len(own)} victims."
    )


def _failures(own: Sequence[Record], role: str) -> str:
    """The victims of which a graph lets much through, the worst first."""
    found = sorted(
        ((r[role]["asr"], r["victim"]) for r in of_attacked(own) if r[role]["asr"] >= _MUCH),
        key=lambda pair: -pair[0],
    )
    graph = "detector" if role == "detector" else "hardened graph alone"
    if not found:
        return f"The {graph} let less than {_MUCH:.0f} % through of every attack on every victim."
    return (
        f"Victims of which the {graph} let {_MUCH:.0f} % or more through, with the rate: "
        f"{_named(found)}."
    )


def _weak(own: Sequence[Record]) -> str:
    """The victims on which attacks do not work so well that there is much to stop."""
    found = [(r["original"]["asr"], r["victim"]) for r in of_attacked(own)]
    found = [(rate, victim) for rate, victim in found if rate < _WELL]
    if not found:
        return ""
    return (
        f"Attacks that work on less than {_WELL:.0f} % of triggered samples even without a "
        f"defence, with the rate: {_named(found)}."
    )


def _named(rates: Iterable[tuple[float, dict[str, Any]]]) -> str:
    return "; ".join(
        f"{victim['attack']} on {_NOUNS[victim['dataset']]}, {victim['network']} ({rate:.0f})"
        for rate, victim in rates
    )


def _better(whole: Sequence[Record], role: str) -> str:
    """Attacks of which another method lets less through than a graph of the default method."""
    attacked = of_attacked(whole)
    rates = _rates(attacked, DEFAULT, role)
    told = []
    for method, other in tables.columns(attacked):
        if method == DEFAULT or other not in ("repaired", role):
            continue
        better = [
            f"{name} ({rate:.1f} instead of {rates[name]:.1f})"
            for name, rate in _rates(attacked, method, other).items()
            if name in rates and round(rate, 1) < round(rates[name], 1)
        ]
        if better:
            told.append(f"`{method}` of {', '.join(better)}")
    if not told:
        return ""
    return f"Other methods that let less through than the {role} graph: {'; '.join(told)}."


def _rates(attacked: Iterable[Record], method: str, role: str) -> dict[str, float]:
    """Mean attack success rate by attack."""
    own = tables.of(attacked, method, role)
    return {name: fmean(r[role]["asr"] for r in those) for name, those in tables.by_attack(own)}
