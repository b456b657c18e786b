"""What our benchmark of attacks measured of a method: what it stops, and what it does not.

The figures lie in ``attacks.json``, which ``python -m benchmarks.defence --size full --publish``
writes; they are of the benchmark's small networks, not of the user's model.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

STOPPED = 0.1
"""The largest mean attack success rate of an attack that counts as stopped."""


@cache
def _measured() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("mmbm_onnx.report").joinpath("attacks.json").read_text("utf-8")
    methods: dict[str, list[dict[str, Any]]] = json.loads(text)
    return methods


def benchmark_of(method: str) -> dict[str, Any]:
    """The part of a report that says what a method stopped and missed.

    Args:
        method: Its name.

    Returns:
        ``attacks``: one entry per attack that the method was measured on, with ``attack``,
        ``adaptive`` (whether the attacker knows the method), ``victims`` (how many) and the mean
        attack success rates, fractions, of the ``original``, ``hardened`` and ``detector`` graphs;
        ``stopped`` and ``missed``: names of the attacks whose rate the detector brings to at most
        10 %, and of the others. All are empty for a method that was not measured.
    """
    attacks = [dict(entry) for entry in _measured().get(method, [])]
    return {
        "attacks": attacks,
        "stopped": [entry["attack"] for entry in attacks if entry["detector"] <= STOPPED],
        "missed": [entry["attack"] for entry in attacks if entry["detector"] > STOPPED],
    }
