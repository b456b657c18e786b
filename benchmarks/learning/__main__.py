"""Time and memory of learning: against the published recipe, by number of classes and of samples.

    python -m benchmarks.learning

Writes ``benchmarks/results/learning.md``. Victims are those of ``benchmarks.defence``, trained
where they are not in the cache. Every figure is of a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.defence import sizes, victims
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.report.pieces import library_versions

ROOT = Path(__file__).resolve().parents[2]
_ATTACKS = ("badnets", "wanet", "bpp")  # whose victims of seed 0 are of three kinds
_CLASSES = (10, 100, 1000)
_SAMPLES = (250, 1000, 4000)
_EPOCHS = 10  # where only sizes are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/learning.md")
    options = parser.parse_args()
    methods = []
    for victim in sizes.first_of(_ATTACKS):
        folder = victims.ensure(victim, options.cache)
        found = {
            method: run(kind="victim", folder=str(folder), method=method)
            for method in ("mmac-universal", "mmac-reference")
        }
        methods.append((victim.label, found))
        print(victim.label, found, flush=True)
    by_classes = [
        (classes, run(kind="random", classes=classes, samples=1000, epochs=_EPOCHS))
        for classes in _CLASSES
    ]
    print(by_classes, flush=True)
    by_samples = [
        (samples, run(kind="random", classes=10, samples=samples, epochs=_EPOCHS))
        for samples in _SAMPLES
    ]
    print(by_samples, flush=True)
    text = render(methods, by_classes, by_samples)
    options.output.write_text(text)
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


def render(
    methods: list[tuple[str, dict[str, dict[str, float]]]],
    by_classes: list[tuple[int, dict[str, float]]],
    by_samples: list[tuple[int, dict[str, float]]],
) -> str:
    """Tables in Markdown."""
    kind, libraries = machine(), library_versions()
    lines = [
        "# Time and memory of learning",
        "",
        f"By `python -m benchmarks.learning`; one thread; torch {libraries.get('torch')}; "
        f"{kind['processor']}; {datetime.now(UTC).date().isoformat()}. Seconds are of the "
        "report's phase `learn`; memory is the peak of the whole process.",
        "",
        "| victim, 500 clean samples | mmac-universal | mmac-reference | ratio |",
        "|---|---|---|---|",
    ]
    for label, found in methods:
        own, other = (found[m]["seconds"] for m in ("mmac-universal", "mmac-reference"))
        lines.append(f"| {label} | {own:.0f} s | {other:.0f} s | {other / own:.1f} |")
    for title, rows in (
        ("classes, 1,000 samples of 64x64", by_classes),
        ("samples of 64x64, 10 classes", by_samples),
    ):
        first = rows[0][1]
        lines += ["", f"| {title} | seconds, {_EPOCHS} epochs | ratio | peak memory |"]
        lines += ["|---|---|---|---|"]
        for size, found in rows:
            ratio, peak = found["seconds"] / first["seconds"], found["peak"] / 2**20
            lines.append(f"| {size} | {found['seconds']:.0f} | {ratio:.2f} | {peak:.0f} MiB |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
