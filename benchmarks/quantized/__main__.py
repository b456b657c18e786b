"""Quantize hardened graphs of the benchmark's victims, and measure what that changes.

    python -m benchmarks.quantized

Writes ``benchmarks/results/quantized.md``. Victims are those of ``benchmarks.defence``, trained
where they are not in the cache.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

import mmbm_onnx
from benchmarks.defence import measures, sizes, victims
from benchmarks.defence.victims import Victim
from benchmarks.quantized.static import quantized
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.evaluation.latency import measure_latency
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.report.pieces import library_versions
from mmbm_onnx.rewriting.harden import insert_bounds

ROOT = Path(__file__).resolve().parents[2]
_ATTACKS = ("badnets", "badnets-all-to-all", "chessboard", "wanet", "bpp", "sig")
_CLEAN = 500
_GRAPHS = ("original", "hardened", "original int8", "hardened int8", "unfolded int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--seconds", type=float, default=4.0, help="per batch size")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/quantized.md")
    options = parser.parse_args()
    rows = []
    for victim in sizes.first_of(_ATTACKS):
        rows.append(measure(victim, options.cache, options.seconds))
        print(rows[-1], flush=True)
    text = render(rows)
    options.output.write_text(text)
    print(text, end="")


def measure(victim: Victim, store: Path, seconds: float) -> dict[str, Any]:
    """ACC / ASR in percent, and time in that of the original in float, of every graph."""
    trained = victims.make(victim, store)
    x, y = (part[:_CLEAN] for part in trained.clean)
    original = onnx.load(trained.model)
    result = mmbm_onnx.harden(
        trained.model, (x, y), detector=False, seed=victim.seed, threads=1, fold="always"
    )
    hardened = result.hardened
    unfolded = insert_bounds(original, find_sites(original).sites, result.bounds)
    graphs = {
        "original": original,
        "hardened": hardened,
        "original int8": quantized(original, x),
        "hardened int8": quantized(hardened, x),
        "unfolded int8": quantized(unfolded, x),
    }
    row: dict[str, Any] = {"victim": victim.label}
    for name, proto in graphs.items():
        figures, _, _ = measures.measure(trained, proto.SerializeToString())
        row[name] = f"{figures['acc']:.1f} / {figures['asr']:.1f}"
    found = measure_latency(
        graphs,
        find_interface(original),
        x=trained.test[0][:_CLEAN],
        batch_sizes=(1, 8),
        seconds=2 * seconds,
        threads=1,
    )
    for latency in found:
        row[f"{latency.graph}, batch {latency.batch_size}"] = f"{latency.ratio:.2f}"
    return row


def render(rows: list[dict[str, Any]]) -> str:
    """Two tables in Markdown."""
    kind, libraries = machine(), library_versions()
    runtime = libraries.get("onnxruntime") or libraries.get("onnxruntime-gpu")
    lines = [
        "# Quantized after hardening",
        "",
        f"ONNX Runtime {runtime}'s static quantization (QDQ, int8, weights per channel in 7 "
        f"bits), ranges from the {_CLEAN} clean samples; by `python -m benchmarks.quantized`; "
        f"{kind['processor']}, {kind['processors']} processors; "
        f"{datetime.now(UTC).date().isoformat()}. *Unfolded*: with `--fold never`.",
        "",
        "ACC / ASR, percent:",
        "",
        f"| victim | {' | '.join(_GRAPHS)} |",
        "|---" * (len(_GRAPHS) + 1) + "|",
    ]
    lines += [f"| {r['victim']} | {' | '.join(r[name] for name in _GRAPHS)} |" for r in rows]
    timed = [f"{name}, batch {size}" for size in (1, 8) for name in _GRAPHS[1:]]
    lines += [
        "",
        "Time in that of the original in float, one thread:",
        "",
        f"| victim | {' | '.join(timed)} |",
        "|---" * (len(timed) + 1) + "|",
    ]
    lines += [f"| {r['victim']} | {' | '.join(r[name] for name in timed)} |" for r in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
