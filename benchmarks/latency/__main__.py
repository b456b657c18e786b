"""Time hardened and detector graphs beside the original, network by network.

    python -m benchmarks.latency

Needs torchvision for the larger networks: pip install --no-deps torchvision==0.28.0. Writes
``latency-<provider>.json`` and ``.md`` to ``benchmarks/results``. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.latency.graphs import graphs
from benchmarks.latency.networks import NAMES, blots, build
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.evaluation.latency import measure_latency
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.report.pieces import library_versions

RESULTS = Path(__file__).resolve().parents[1] / "results"
_SAMPLES = 200  # that batches are drawn from
_TOLD = {
    "hardened": "The hardened graph",
    "min": "Hardened, `--fold never`",
    "int8": "The hardened graph, quantized to int8",
    "detector": "The detector graph",
    "detector-int8": "The detector graph, `--shadow int8`",
    "both": "The detector, `--cascade never`",
    "both-int8": "The detector, `--cascade never --shadow int8`",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NETWORK")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="per batch size and threads")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument(
        "--add", action="store_true", help="keep what is there of other networks, of this machine"
    )
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results go")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    rows: list[dict[str, Any]] = []
    command = shlex.join(["python", "-m", "benchmarks.latency", *sys.argv[1:]])
    result = {
        "machine": machine(),
        "libraries": library_versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "provider": options.provider,
        "command": command,
        "rows": rows,
    }
    target = options.folder / f"latency-{options.provider}"
    if options.add:
        before = json.loads(target.with_suffix(".json").read_text())
        for key in ("machine", "libraries"):
            if before[key] != result[key]:
                parser.error(f"what is there is of another {key}: {before[key]}")
        result["command"] = f"{before['command']}; {command}"
        rows += [row for row in before["rows"] if row["network"] not in options.only]
    for name in options.only:
        rows += measure(name, options.batch, options.threads, options.seconds, options.provider)
        gc.collect()
        # After each, so that what was measured stays.
        target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        target.with_suffix(".md").write_text(render(result))
    print(render(result), end="")


def measure(
    name: str, sizes: Sequence[int], threads: Sequence[int], seconds: float, provider: str
) -> list[dict[str, Any]]:
    """Times of one network's graphs."""
    network = build(name)
    made = graphs(network)
    x = blots(_SAMPLES, network.shape, 1)
    rows = []
    for count in threads:
        found = measure_latency(
            made,
            find_interface(network.proto),
            x=x,
            batch_sizes=sizes,
            seconds=seconds * len(sizes),
            provider=provider,
            threads=count,
        )
        rows += [{"network": name, "threads": count, **asdict(latency)} for latency in found]
        for row in rows[-len(found) :]:
            print(f"{name} {row['graph']} batch {row['batch_size']} threads {count}: "
                  f"{row['ratio']:.3f}", flush=True)  # fmt: skip
    return rows


def render(result: dict[str, Any]) -> str:
    """Tables in Markdown: ratios of times to the original's, and their quartiles."""
    rows = result["rows"]
    kind, libraries = result["machine"], result["libraries"]
    runtime = libraries.get("onnxruntime") or libraries.get("onnxruntime-gpu")
    columns = sorted({(row["threads"], row["batch_size"]) for row in rows})
    heads = [f"{t} thread{'s' * (t > 1)}, batch {size}" for t, size in columns]
    lines = [
        "# Time at inference",
        "",
        f"In that of the original, in ONNX Runtime {runtime} on {result['provider']}; "
        f"{kind['processor']}, {kind['processors']} processors, {kind['system']}; "
        f"{result['date']}; by `{result['command']}`. Runs in turns on 32 batches of samples, in "
        "brackets quartiles over single runs. Of the detector in two stages the slow runs are few, "
        "so that its mean may be above both.",
    ]
    for graph, told in _TOLD.items():
        lines += ["", f"## {told}", ""]
        of_graph = [row for row in rows if row["graph"] == graph]
        if not of_graph:
            lines.append("None of them has one.")
            continue
        lines += [f"| network | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        for name in dict.fromkeys(row["network"] for row in of_graph):
            cells = [
                f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
                for place in columns
                for row in of_graph
                if row["network"] == name and (row["threads"], row["batch_size"]) == place
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        ratios = [row["ratio"] for row in of_graph]
        lines += ["", f"Mean {fmean(ratios):.3f}, worst {max(ratios):.3f}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
