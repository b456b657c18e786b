"""The demo for several seeds: data split, training, learning and calibration all anew.

    python benchmarks/demo_seeds.py --seeds 0 1 2 3 4

Runs ``examples/demo/run.py`` for each seed and writes a table, the worst of each column last, to
``benchmarks/results/demo_seeds.md`` (and the figures to ``.json`` beside it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = [
    ("original", "acc", min),
    ("original", "asr", min),
    ("hardened", "acc", min),
    ("hardened", "asr", max),
    ("hardened", "ra", min),
    ("detector", "acc", min),
    ("detector", "asr", max),
    ("detector", "ra", min),
    ("detector", "true_positive_rate", min),
    ("detector", "false_positive_rate", max),
]
NAMES = {"true_positive_rate": "TPR", "false_positive_rate": "FPR"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--method", default="mmac-universal")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run at the same time")
    parser.add_argument("--threads", type=int, default=2, help="of each; other bits, same method")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/demo_seeds.md")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(
            pool.map(lambda seed: run(seed, options.method, options.threads), options.seeds)
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n")
    options.output.write_text(table(rows))
    print(table(rows))


def run(seed: int, method: str, threads: int) -> dict:
    """The demo with one seed."""
    folder = ROOT / "build" / f"demo-{method}-{threads}-{seed}"
    command = [sys.executable, str(ROOT / "examples/demo/run.py"), "--output", str(folder)]
    command += ["--seed", str(seed), "--method", method, "--force", "--no-figure"]
    command += ["--threads", str(threads)]
    started = time.perf_counter()
    # 1: a gate failed; the graphs are written and are measured like any other.
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 1):
        raise SystemExit(f"seed {seed}: the demo ended with exit status {code}")
    summary = json.loads((folder / "summary.json").read_text())
    seconds = round(time.perf_counter() - started)
    return {"seed": seed, "exit_status": code, "seconds": seconds, **summary}


def table(rows: list[dict]) -> str:
    """A Markdown table, percent."""
    heads = ["seed", *(f"{role} {NAMES.get(key, key.upper())}" for role, key, _ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        figures = [f"{row[role][key]:.1f}" for role, key, _ in COLUMNS]
        lines.append("| " + " | ".join([str(row["seed"]), *figures]) + " |")
    worst = [f"**{pick(row[role][key] for row in rows):.1f}**" for role, key, pick in COLUMNS]
    lines.append("| " + " | ".join(["**worst**", *worst]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
