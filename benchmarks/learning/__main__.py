"""Time and memory of learning: against the published recipe, by number of classes and of samples.

    python -m benchmarks.learning

Writes ``learning.json`` and ``.md`` to ``benchmarks/results``. Victims are those of
``benchmarks.defence``, trained where they are not in the cache. Every figure is of a process of its
own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.defence import sizes, victims
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.report.pieces import library_versions

ROOT = Path(__file__).resolve().parents[2]
_ATTACKS = ("badnets", "wanet", "bpp")  # whose victims of seed 0 are of three kinds
_CLASSES = (10, 100, 1000)
_SAMPLES = (250, 1000, 4000)
_EPOCHS = 10  # where only sizes are compared
METHODS = ("mmac-universal", "mmac-reference")
_TITLES = {
    "classes": "classes, 1,000 samples of 64x64",
    "samples": "samples of 64x64, 10 classes",
}
_LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def measure(table: str, size: str | int, **request: Any) -> None:
        rows.append({"table": table, "of": size, **run(**request)})
        print(rows[-1], flush=True)

    for victim in sizes.first_of(_ATTACKS):
        folder = str(victims.ensure(victim, options.cache))
        # The short one before and after the long one: a slow moment would fall on the short alone.
        for method in (*METHODS, METHODS[0]):
            measure(method, victim.label, kind="victim", folder=folder, method=method)
    for classes in _CLASSES:
        measure("classes", classes, kind="random", classes=classes, samples=1000, epochs=_EPOCHS)
    for samples in _SAMPLES:
        measure("samples", samples, kind="random", classes=10, samples=samples, epochs=_EPOCHS)
    result = {
        "machine": machine(),
        "libraries": library_versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "rows": rows,
    }
    (options.folder / "learning.json").write_text(json.dumps(result, indent=1) + "\n")
    text = render(result)
    (options.folder / "learning.md").write_text(text)
    print(text, end="")


def run(**request: Any) -> dict[str, float]:
    """Seconds of learning and bytes at the peak, by ``measured`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning.measured"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise SystemExit(f"{request}: {done.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def render(result: dict[str, Any]) -> str:
    """Tables in Markdown."""
    kind, libraries = result["machine"], result["libraries"]
    named = ", ".join(f"{name} {libraries[name]}" for name in _LIBRARIES if name in libraries)
    lines = [
        "# Time and memory of learning",
        "",
        f"By `python -m benchmarks.learning`; one thread; {named}; {kind['processor']}; "
        f"{result['date']}. Seconds are of the report's phase `learn`, of the short method before "
        "and after the long one; memory is the peak of the whole process.",
        "",
        f"| victim, 500 clean samples | {' | '.join(METHODS)} | ratio |",
        "|---" * (len(METHODS) + 2) + "|",
    ]
    tables: dict[str, dict[str | int, list[dict[str, Any]]]] = {}
    for row in result["rows"]:
        tables.setdefault(row["table"], {}).setdefault(row["of"], []).append(row)
    ours, published = (tables[method] for method in METHODS)
    for label in ours:
        own, other = ([row["seconds"] for row in found[label]] for found in (ours, published))
        cells = [", ".join(f"{seconds:.1f} s" for seconds in part) for part in (own, other)]
        lines.append(f"| {label} | {' | '.join(cells)} | {fmean(other) / fmean(own):.2f} |")
    for table, title in _TITLES.items():
        rows = [row for found in tables[table].values() for row in found]
        lines += ["", f"| {title} | seconds, {_EPOCHS} epochs | ratio | peak memory |"]
        lines += ["|---|---|---|---|"]
        for row in rows:
            ratio, peak = row["seconds"] / rows[0]["seconds"], row["peak"] / 2**20
            lines.append(f"| {row['of']} | {row['seconds']:.1f} | {ratio:.2f} | {peak:.0f} MiB |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
