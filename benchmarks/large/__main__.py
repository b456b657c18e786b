"""Harden and verify a model of 2.5 GB, and tell how much memory that takes.

    python -m benchmarks.large

Runs ``mmbm-onnx harden`` and ``mmbm-onnx verify`` as a user would, one pass of learning, and
writes ``benchmarks/results/large.md``. Needs three times the model's size of disk space. Peak
memory is the largest resident set of the process (``ru_maxrss``), pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.large.model import build, digits

ROOT = Path(__file__).resolve().parents[2]
_TOOL = str(Path(sys.executable).with_name("mmbm-onnx"))
_CLEAN, _HELD_OUT = 200, 400  # samples


@dataclass(frozen=True)
class Run:
    """What a command took: seconds, and bytes at its peak."""

    command: str
    seconds: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", type=float, default=2.5, help="of the weights, in GB (10^9 B)")
    parser.add_argument("--half", action="store_true", help="weights and samples in float16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where it works; default: a temporary one")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/large.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text = measure(Path(folder), int(options.size * 1e9), options.threads, half=options.half)
    options.output.write_text(text)
    print(text, end="")


def measure(folder: Path, size: int, threads: int, *, half: bool) -> str:
    """The table, in Markdown."""
    model = folder / "large.onnx"
    total = build(model, size, half=half)
    images, labels = digits()
    images = images.astype(np.float16 if half else np.float32)
    clean, held_out = folder / "clean.npz", folder / "held_out.npz"
    rest = slice(len(images) - _HELD_OUT, None)
    first = slice(len(images) - _HELD_OUT - _CLEAN, len(images) - _HELD_OUT)
    np.savez(clean, x=images[first], y=labels[first])
    np.savez(held_out, x=images[rest], y=labels[rest])
    told = folder / "verified.json"
    hardened, detector = folder / "large.hardened.onnx", folder / "large.detector.onnx"
    shared = ["--threads", str(threads)]
    runs = [
        run(
            ["harden", str(model), "--clean-dir", str(clean), *shared],
            ["--epochs", "1", "--batch-size", "50", "--max-accuracy-drop", "1", "--quiet"],
        ),
        run(
            ["verify", str(model), str(hardened), "--detector", str(detector), *shared],
            ["--clean-dir", str(held_out), "--max-accuracy-drop", "1", "--format", "json"],
            told,
        ),
    ]
    measured = json.loads(told.read_text())["measurements"]
    lines = [
        f"A model of {total / 1e9:.2f} GB in {'float16' if half else 'float32'}, {_CLEAN} clean "
        f"samples, one pass of learning, {threads} threads.",
        "",
        "| command | peak memory, GB | of the model's size | seconds |",
        "|---|---|---|---|",
        *(
            f"| `{one.command}` | {one.peak / 1e9:.2f} | {one.peak / total:.2f}x "
            f"| {one.seconds:.0f} |"
            for one in runs
        ),
        "",
        f"Accuracy on {_HELD_OUT} other samples: "
        + ", ".join(
            f"{role} {100 * measured[role]['accuracy']:.1f} %"
            for role in ("original", "hardened", "detector")
        )
        + ".",
    ]
    return "\n".join(lines) + "\n"


def run(command: list[str], options: list[str], stdout: Path | None = None) -> Run:
    """Run the tool.

    Raises:
        SystemExit: It failed.
    """
    started = time.perf_counter()
    child = os.fork()
    if not child:
        if stdout is not None:
            os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o644), 1)
        os.execv(_TOOL, [_TOOL, *command, *options])
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join([*command, *options])} failed")
    kibibytes = 1 if sys.platform == "darwin" else 1024
    return Run(command[0], time.perf_counter() - started, usage.ru_maxrss * kibibytes)


if __name__ == "__main__":
    main()
