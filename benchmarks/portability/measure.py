"""Run every graph of a victim in every runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.portability.compare import Answers, compare, in_short
from benchmarks.portability.graphs import ORIGINAL
from benchmarks.portability.networks import Victim
from benchmarks.portability.runtimes import REFERENCE, Batches, Runtime

_MANY = 16


def batches(victim: Victim, count: int) -> Batches:
    """So many clean samples and as many triggered ones, in batches that hold none of these, some,
    or nothing else; then alone."""
    clean, triggered = victim.held_out[:count], victim.triggered[:count]
    half = count // 2
    mixed = np.stack([clean[half:], triggered[half:]], 1).reshape(-1, *clean.shape[1:])
    runs = (clean[:half], mixed, triggered[:half])
    size = victim.batch or _MANY
    cut = [run[i : i + size] for run in runs for i in range(0, len(run), size)]
    if victim.batch is not None:
        return [batch for batch in cut if len(batch) == size]
    return [*cut, clean[:1], triggered[:1], clean[:3]]


def measure(
    graphs: Mapping[str, Path], victim: Victim, chosen: Mapping[str, Runtime], count: int
) -> list[dict[str, Any]]:
    """One row for each graph and runtime; the first runtime is what the others are compared with.

    A row has ``graph``, ``runtime``, and either ``error`` or what ``compare`` found.
    """
    fed = batches(victim, count)
    assert next(iter(chosen)) == REFERENCE
    rows: list[dict[str, Any]] = []
    expected: dict[str, Answers] = {}
    for name, runtime in chosen.items():
        original: Answers | None = None
        for kind, path in _original_first(graphs):
            row: dict[str, Any] = {"graph": kind, "runtime": name}
            rows.append(row)
            try:
                found = runtime.run(path, fed)
                if kind == ORIGINAL:
                    original = found
                if name == REFERENCE:
                    expected[kind] = found
                if original is None:
                    raise RuntimeError("does not run the original either")
                row |= asdict(compare(expected[kind], found, original))
            except Exception as error:  # of any runtime: that is what is asked here
                row["error"] = in_short(error)
    return rows


def _original_first(graphs: Mapping[str, Path]) -> Iterable[tuple[str, Path]]:
    return sorted(graphs.items(), key=lambda item: item[0] != ORIGINAL)
