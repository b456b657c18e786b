"""What our benchmark of attacks measured of a method: what it stops, and what it does not.

The figures lie in ``attacks.json``, which ``python -m benchmarks.defence --size full --publish``
writes; they are of the benchmark's small networks, not of the user's model.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Literal

STOPPED = 0.1
"""The largest mean attack success rate of an attack that counts as stopped."""


@cache
def _measured() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("mmbm_onnx.report").joinpath("attacks.json").read_text("utf-8")
    methods: dict[str, list[dict[str, Any]]] = json.loads(text)
    return methods


def benchmark_of(
    method: str, graph: Literal["hardened", "detector"], granularity: str = "channel"
) -> dict[str, Any]:
    """The part of a report that says what a method stopped and missed.

    Args:
        method: Its name.
        graph: The strongest one that is written, by whose rates attacks are stopped or missed.
        granularity: Of the bounds; only those per channel were measured.

    Returns:
        ``graph``; ``attacks``: one entry per attack that the method was measured on, with
        ``attack``, ``adaptive`` (whether the attacker knows the method), ``victims`` (how many) and
        the mean attack success rates, fractions, of the ``original``, ``hardened`` and
        ``detector`` graphs; ``stopped`` and ``missed``: names of the attacks whose rate the graph
        brings to at most 10 %, and of the others. The lists are empty for what was not measured.
    """
    attacks = [dict(entry) for entry in _measured().get(method, []) if granularity == "channel"]
    return {
        "graph": graph,
        "attacks": attacks,
        "stopped": [entry["attack"] for entry in attacks if entry[graph] <= STOPPED],
        "missed": [entry["attack"] for entry in attacks if entry[graph] > STOPPED],
    }
