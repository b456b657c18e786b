"""What goes from the benchmark into the product: the report's statement, README, documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defence import attacks, tables, words
from benchmarks.defence.tables import Record
from mmbm_onnx.learning.settings import METHODS

ROOT = Path(__file__).resolve().parents[2]
STATEMENT = ROOT / "mmbm_onnx/report/attacks.json"
HELD_OUT = ROOT / "benchmarks/results/defence-held-out.jsonl"
Told = Callable[[Sequence[Record], Sequence[Record]], str]
PAGES: dict[Path, Told] = {
    ROOT / "README.md": lambda records, held_out: "\n\n".join(
        [tables.for_readers(records), words.of_readme(records), words.of_held_out(held_out)]
    ),
    ROOT / "docs/clean-data.md": lambda records, _: (
        f"Mean {words.CAPTION}:\n\n{words.of_clean_samples(records)}"
    ),
}
BEGIN, END = "<!-- defence: begin -->", "<!-- defence: end -->"


def publish(records: Sequence[Record], held_out: Sequence[Record]) -> None:
    """Write the statement, and what pages say between two comments."""
    STATEMENT.write_text(json.dumps(statement(records), indent=1) + "\n")
    for page, told in PAGES.items():
        before, rest = page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n\n{told(records, held_out)}\n\n{END}{after}")


def statement(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """By method of ours and attack: attack success rates, mean and worst, fractions."""
    attacked = tables.under_attack(records)
    found: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        own = tables.of(attacked, method, "detector")
        entries = []
        for name, those in tables.by_attack(own):
            rates = {
                role: _share(np.mean, [r[role]["asr"] for r in those])
                for role in ("original", "hardened", "detector")
            }
            for role in ("hardened", "detector"):
                rates[f"{role}_worst"] = _share(np.max, [r[role]["asr"] for r in those])
            adaptive = name in attacks.ADAPTIVE
            entries.append({"attack": name, "adaptive": adaptive, "victims": len(those), **rates})
        if entries:
            found[method] = entries
    return found


def _share(of: Callable[[list[float]], np.floating], percent: list[float]) -> float:
    return round(float(of(percent)) / 100, 4)
