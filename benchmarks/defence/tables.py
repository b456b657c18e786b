"""Records to Markdown: means, spreads and the worst, percent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.defence import attacks

Record = dict[str, Any]
Summary = Callable[[list[float]], float]
WHOLE = 500
DEFAULT = "mmac-universal"
_ROLES = ("detector", "hardened", "repaired")


def render(records: Sequence[Record]) -> str:
    """All tables."""
    main = whole(records)
    attacked = under_attack(records)
    known = [r for r in attacked if r["victim"]["attack"] not in attacks.ADAPTIVE]
    parts = [
        "# What the methods stop",
        "Percent. ACC and ASR are those of the graph in question, DER weighs the fall of ASR "
        "against the fall of ACC (50: no effect, 100: perfect). `±` is the standard deviation "
        f"over victims. {len({_victim(r) for r in records})} victims, "
        f"{len(records)} cells.",
        "## All attacks but adaptive ones",
        _summary(known),
        "## Attack by attack: ASR, mean of victims",
        _by_attack(attacked, "asr"),
        "## Attack by attack: ASR, worst victim",
        _by_attack(attacked, "asr", max),
        "## Attack by attack: DER",
        _by_attack(attacked, "der"),
        "## Detection: score and threshold at a requested false-positive rate of 1 %",
        _detection(attacked),
        "## Clean models: fall of ACC",
        _clean_models([r for r in main if r["victim"]["attack"] == attacks.CLEAN]),
        "## Clean samples",
        _clean_sizes([r for r in records if r["victim"]["attack"] not in attacks.ADAPTIVE]),
        "## Share of poison",
        _shares([r for r in records if r["clean"] == WHOLE]),
        "## Seconds for one hardening",
        "Learning and measuring: on one thread of a CPU, or on a GPU that several processes share.",
        _seconds(main),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def for_readers(records: Sequence[Record]) -> str:
    """The table of README: every attack, what the default method leaves of it, and the peers."""
    attacked = under_attack(records)
    kinds = [
        (DEFAULT, "detector"),
        (DEFAULT, "hardened"),
        *(kind for kind in columns(attacked) if kind[0] != DEFAULT and kind[1] != "hardened"),
    ]
    heads = ["attack", "none", *(f"{method} {role}" for method, role in kinds)]
    rows = [
        [f"{name} (knows the defence)" if name in attacks.ADAPTIVE else name, *figures]
        for name, *figures in _attack_rows(attacked, "asr", kinds)
    ]
    known = [r for r in attacked if r["victim"]["attack"] not in attacks.ADAPTIVE]
    for head, key in (("mean ASR", "asr"), ("mean DER", "der")):
        values = [mean([r[role][key] for r in of(known, m, role)]) for m, role in kinds]
        none = mean([r["original"]["asr"] for r in of(known, "none")]) if key == "asr" else ""
        rows.append([f"**{head}**, without those who know", none, *values])
    return table(heads, rows)


def under_attack(records: Iterable[Record]) -> list[Record]:
    """Those of attacked victims, with the attack's own share of poison and all clean samples."""
    return of_attacked(whole(records))


def of_attacked(records: Iterable[Record]) -> list[Record]:
    """Those of victims that are not clean."""
    return [r for r in records if r["victim"]["attack"] != attacks.CLEAN]


def by_attack(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    """The attacks that there are records of, in their order, with these records."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record["victim"]["attack"]].append(record)
    return ((name, groups[name]) for name in attacks.NAMES if name in groups)


def falls(records: Iterable[Record], role: str) -> list[float]:
    """Points of accuracy that a kind of graph lacks of the original's."""
    return [r["original"]["acc"] - r[role]["acc"] for r in records]


def columns(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Method and role of every kind of graph there is, ours first."""
    found = {(r["method"], role) for r in records for role in _ROLES if role in r}
    return sorted(found, key=lambda pair: (_ROLES.index(pair[1]), pair[0]))


def _summary(records: Sequence[Record]) -> str:
    kinds = [("none", "original"), *columns(records)]
    rows = [[method, role, *_six(of(records, method, role), role)] for method, role in kinds]
    heads = ["method", "graph", "ACC", "fall of ACC, worst", "ASR", "ASR, worst", "RA", "DER"]
    return table(heads, rows)


def _six(records: Sequence[Record], role: str) -> list[str]:
    figures = [r[role] for r in records]
    drops = falls(records, role)
    asr = [found["asr"] for found in figures]
    return [
        _spread([found["acc"] for found in figures]),
        _number(max(drops, default=None)),
        _spread(asr),
        _number(max(asr, default=None)),
        _spread([found["ra"] for found in figures]),
        _spread([found["der"] for found in figures if "der" in found]),
    ]


def _by_attack(records: Sequence[Record], key: str, of_victims: Summary = fmean) -> str:
    kinds = columns(records)
    heads = ["attack", *(["none"] if key == "asr" else []), *(f"{m} {r}" for m, r in kinds)]
    return table(heads, _attack_rows(records, key, kinds, of_victims))


def _attack_rows(
    records: Sequence[Record],
    key: str,
    kinds: Sequence[tuple[str, str]],
    of_victims: Summary = fmean,
) -> list[list[str]]:
    """Attack, of ASR also the original's, and of each kind of graph the mean, or what is said."""

    def cell(values: list[float]) -> str:
        return _number(of_victims(values)) if values else ""

    rows = []
    for name, own in by_attack(records):
        row = [name]
        if key == "asr":
            row.append(cell([r["original"]["asr"] for r in of(own, "none")]))
        row += [cell([r[role][key] for r in of(own, method, role)]) for method, role in kinds]
        rows.append(row)
    return rows


def _detection(records: Sequence[Record]) -> str:
    rows = []
    for method in _methods(records, "detector"):
        own = [r["detector"] for r in of(records, method, "detector")]
        fpr = [figures["fpr"] for figures in own]
        row = [method, _spread(fpr), _number(min(fpr)), _number(max(fpr))]
        for key in ("tpr", "auc"):
            row.append(_spread([figures[key] for figures in own if figures[key] is not None]))
        rows.append(row)
    heads = ["method", "FPR", "FPR, lowest", "FPR, highest", "TPR", "ROC-AUC of the score"]
    return table(heads, rows)


def _clean_models(records: Sequence[Record]) -> str:
    rows = []
    for method, role in columns(records):
        drops = falls(of(records, method, role), role)
        rows.append([method, role, _spread(drops), _number(max(drops, default=None))])
    return table(["method", "graph", "fall of ACC", "worst"], rows)


def _clean_sizes(records: Sequence[Record]) -> str:
    small = {(_victim(r), r["method"]) for r in records if r["clean"] != WHOLE}
    own = [r for r in records if (_victim(r), r["method"]) in small and "detector" in r]
    own = [r for r in own if r["detector"]["der"] is not None]
    return _grouped(own, lambda r: r["clean"], str, "clean samples")


def _shares(records: Sequence[Record]) -> str:
    varied = {
        (r["method"], r["victim"]["attack"])
        for r in records
        if r["victim"]["share"] is not None and "detector" in r
    }
    own = [r for r in records if (r["method"], r["victim"]["attack"]) in varied]

    def group(record: Record) -> tuple[str, str, float]:
        attack, share = record["victim"]["attack"], record["victim"]["share"]
        if share is None:
            share = attacks.usual_share(attack)
        return record["method"], attack, share

    def name(key: tuple[str, str, float]) -> str:
        method, attack, share = key
        return f"{method}, {attack}, {100 * share:g} %"

    return _grouped(own, group, name, "method, attack, poison", none=True)


def _grouped(
    records: Sequence[Record],
    group: Callable[[Record], Any],
    name: Callable[[Any], str],
    head: str,
    *,
    none: bool = False,
) -> str:
    """Means of groups, in order, and how much accuracy hardened graphs lose; with ``none`` the
    original's ASR too, which is low where an attack did not take."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[group(record)].append(record)
    means = [(role, figure) for role in ("detector", "hardened") for figure in ("asr", "der")]
    rows = []
    for key in sorted(groups):
        own = groups[key]
        row = [name(key)]
        if none:
            rates = [r["original"]["asr"] for r in own]
            row += [mean(rates), _number(min(rates))]
        row += [mean([r[role][figure] for r in own]) for role, figure in means]
        drops = falls(own, "hardened")
        rows.append([*row, mean(drops), _number(max(drops))])
    heads = [head, *(["none ASR", "lowest"] if none else []), "detector ASR", "DER"]
    return table([*heads, "hardened ASR", "DER", "fall of ACC", "worst"], rows)


def _seconds(records: Sequence[Record]) -> str:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        if record["method"] != "none":
            where = record.get("device", "cpu")  # older records are all of the CPU
            groups[record["method"], where].append(record["seconds"])
    rows = [[*key, mean(groups[key])] for key in sorted(groups)]
    return table(["method", "learned on", "seconds"], rows)


def _methods(records: Iterable[Record], role: str) -> list[str]:
    return sorted({r["method"] for r in records if role in r})


def whole(records: Iterable[Record]) -> list[Record]:
    """Those with the attack's own share of poison and all clean samples."""
    return [r for r in records if r["clean"] == WHOLE and r["victim"]["share"] is None]


def of(records: Iterable[Record], method: str, role: str = "original") -> list[Record]:
    """Those of a method that have a kind of graph."""
    return [r for r in records if r["method"] == method and role in r]


def _victim(record: Record) -> str:
    return str(sorted(record["victim"].items()))


def mean(values: Sequence[float]) -> str:
    """To one place; empty where there are none."""
    return _number(fmean(values)) if values else ""


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}" if values else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    if not rows:
        return "Nothing measured yet."
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
