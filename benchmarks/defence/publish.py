"""What goes from the benchmark into the product: the report's statement and README's table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defence import attacks, tables
from benchmarks.defence.tables import Record
from mmbm_onnx.learning.settings import METHODS

ROOT = Path(__file__).resolve().parents[2]
STATEMENT = ROOT / "mmbm_onnx/report/attacks.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- defence: begin -->", "<!-- defence: end -->"


def publish(records: Sequence[Record]) -> None:
    """Write both."""
    STATEMENT.write_text(json.dumps(statement(records), indent=1) + "\n")
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{tables.for_readers(records)}\n\n{END}{after}")


def statement(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """By method of ours and attack: mean attack success rates, fractions."""
    attacked = tables.under_attack(records)
    found: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        own = tables.of(attacked, method, "detector")
        entries = []
        for name in attacks.NAMES:
            those = [record for record in own if record["victim"]["attack"] == name]
            if those:
                rates = {
                    role: round(float(np.mean([r[role]["asr"] for r in those])) / 100, 4)
                    for role in ("original", "hardened", "detector")
                }
                adaptive = name in attacks.ADAPTIVE
                entries.append(
                    {"attack": name, "adaptive": adaptive, "victims": len(those), **rates}
                )
        if entries:
            found[method] = entries
    return found
