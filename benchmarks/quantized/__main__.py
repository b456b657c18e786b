"""Quantize hardened graphs of the benchmark's victims, and measure what that changes.

    python -m benchmarks.quantized

Writes ``benchmarks/results/quantized.md``. Victims are some of ``benchmarks.defence``, which are
small, and a ResNet-18 at 224x224 pixels; they are trained where they are not in the cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.defence import sizes, victims
from benchmarks.quantized import tables, usual
from benchmarks.quantized.measured import Row, measure

ROOT = Path(__file__).resolve().parents[2]
_ATTACKS = ("badnets", "badnets-all-to-all", "chessboard", "wanet", "bpp", "sig")
_CLEAN = 500
# Of the network of usual size: passes of learning, threads for it, and how much longer it is timed.
_EPOCHS, _THREADS, _LONGER = 20, 2, 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="for a small victim and a batch size"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/quantized.md")
    options = parser.parse_args()
    torch.set_num_threads(_THREADS)
    large = measure(
        usual.make(options.cache),
        f"{usual.VICTIM.network}, {usual.SIDE} px",
        clean=usual.CLEAN,
        seconds=_LONGER * options.seconds,
        detectors=True,
        threads=_THREADS,
        epochs=_EPOCHS,
    )
    small: list[Row] = []
    for victim in sizes.first_of(_ATTACKS):
        trained = victims.make(victim, options.cache)
        small.append(measure(trained, victim.label, clean=_CLEAN, seconds=options.seconds))
    text = tables.render(large, _EPOCHS, small, _CLEAN)
    options.output.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
