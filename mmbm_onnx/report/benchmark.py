"""What our benchmark of attacks measured of a method: what it stops, and what it does not.

The figures lie in ``attacks.json``, which ``python -m benchmarks.defence --size full --publish``
writes; they are of the benchmark's small networks, not of the user's model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

STOPPED = 0.1
"""The largest attack success rate that an attack which counts as stopped has on any victim."""


@cache
def _measured() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("mmbm_onnx.report").joinpath("attacks.json").read_text("utf-8")
    methods: dict[str, list[dict[str, Any]]] = json.loads(text)
    return methods


def benchmark_of(
    method: str, graphs: Sequence[str], granularity: str = "channel"
) -> dict[str, Any]:
    """The part of a report that says what a method stopped and missed.

    Args:
        method: Its name.
        graphs: Those that were made, of ``"hardened"`` and ``"detector"``.
        granularity: Of the bounds; only those per channel were measured.

    Returns:
        ``attacks``: one entry per attack that the method was measured on, with ``attack``,
        ``adaptive`` (whether the attacker knows the method), ``victims`` (how many), the mean
        attack success rates, fractions, of the ``original``, ``hardened`` and ``detector`` graphs,
        and the highest ones of a victim, ``hardened_worst`` and ``detector_worst``. ``graphs``: for
        each graph, ``graph``, ``stopped`` (the names of the attacks whose rate it brings to at most
        10 % on every victim) and ``missed`` (the others). The lists are empty for what was not
        measured.
    """
    attacks = [dict(entry) for entry in _measured().get(method, []) if granularity == "channel"]
    return {"attacks": attacks, "graphs": [_judged(attacks, graph) for graph in graphs]}


def _judged(attacks: Sequence[dict[str, Any]], graph: str) -> dict[str, Any]:
    found: dict[str, list[str]] = {"stopped": [], "missed": []}
    for entry in attacks:
        stopped = entry[f"{graph}_worst"] <= STOPPED
        found["stopped" if stopped else "missed"].append(entry["attack"])
    return {"graph": graph, **found}
