"""Time hardened and detector graphs beside the original, network by network.

    python -m benchmarks.latency

Needs torchvision for the larger networks: pip install --no-deps torchvision==0.28.0. Writes
``latency-<provider>.json`` and ``.md`` to ``benchmarks/results``. Compare ratios of one run only.

For a machine that is at hand for minutes, graphs can be built elsewhere:

    python -m benchmarks.latency --provider cuda --pack graphs
    python -m benchmarks.latency --provider cuda --packed graphs --threads 1
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
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from benchmarks.latency.graphs import ORIGINAL_HALF, goes_on, graphs
from benchmarks.latency.networks import NAMES, VICTIMS, Network, blots, build
from benchmarks.latency.packed import odd as made_odd
from benchmarks.latency.packed import pack, unpack
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.evaluation.latency import time_batches
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.report.pieces import library_versions
from mmbm_onnx.runtime.providers import CPU, resolve_provider
from mmbm_onnx.runtime.sessions import Session

RESULTS = Path(__file__).resolve().parents[1] / "results"
_SAMPLES = 200  # that batches are drawn from
_BATCHES = 32  # at most
SHARE = 0.05
"""Of clean samples, that a detector in two stages is set to send through its bounded branch."""
HALVES = "half-of-half"
_OF_PACKED = (
    " The graphs were built on another machine; noise takes the place of their large weights, and "
    "a value of the input decides which samples go on."
)
_TOLD = {
    "hardened": "The hardened graph",
    "min": "Hardened, `--fold never`",
    "int8": "The hardened graph, quantized to int8",
    "half": "The hardened graph in float16",
    HALVES: "The hardened graph in float16, to the original in float16",
    "detector": "The detector graph",
    "detector-float": "The detector graph, `--shadow float`",
    "detector-int8": "The detector graph, `--shadow int8`",
    "detector-half": "The detector graph, `--shadow half`",
    "both": "The detector, `--cascade never`",
    "both-float": "The detector, `--cascade never --shadow float`",
    "both-int8": "The detector, `--cascade never --shadow int8`",
    "both-half": "The detector, `--cascade never --shadow half`",
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
    parser.add_argument("--pack", type=Path, help="build graphs, without weights, and time nothing")
    parser.add_argument("--packed", type=Path, help="time graphs that --pack has built")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    if options.pack:
        for name in options.only:
            network = build(name)
            pack(network, graphs(network, options.provider, None), options.pack / name)
        return
    rows: list[dict[str, Any]] = []
    command = shlex.join(["python", "-m", "benchmarks.latency", *sys.argv[1:]])
    result = {
        "machine": machine() | _accelerator(options.provider),
        "libraries": library_versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "provider": options.provider,
        "packed": options.packed is not None,
        "batches": _BATCHES,
        "command": command,
        "rows": rows,
    }
    target = options.folder / f"latency-{options.provider}"
    if options.add:
        before = json.loads(target.with_suffix(".json").read_text())
        for key in ("machine", "libraries", "packed"):
            if before.get(key, False) != result[key]:
                parser.error(f"what is there is of another {key}: {before[key]}")
        result["command"] = f"{before['command']}; {command}"
        rows += [row for row in before["rows"] if row["network"] not in options.only]
    for name in options.only:
        settings = options.batch, options.threads, options.seconds, options.provider
        rows += measure(name, *settings, options.packed)
        gc.collect()
        # After each, so that what was measured stays.
        target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        target.with_suffix(".md").write_text(render(result))
    print(render(result), end="")


def _accelerator(provider: str) -> dict[str, str]:
    if resolve_provider(provider) == CPU or not torch.cuda.is_available():
        return {}
    return {"accelerator": torch.cuda.get_device_name()}


def measure(
    name: str,
    sizes: Sequence[int],
    threads: Sequence[int],
    seconds: float,
    provider: str,
    packed: Path | None,
) -> list[dict[str, Any]]:
    """Times of one network's graphs: on samples that look usual to its detector, and those of the
    detector in two stages also where one of a batch goes on, and where all do."""
    if packed is None:
        network = build(name)
        made = graphs(network, provider, provider)
    else:
        network, made = unpack(packed / name)
    interface = find_interface(network.proto)
    detector = made.get("detector")
    usual, others = _samples(name, network, detector, provider, packed=packed is not None)
    staged = ("original", *(graph for graph in made if graph.startswith("detector")))
    rows = []
    for count in threads:
        sessions = {
            graph: Session(
                proto, provider=provider, threads=count, spin=False, defaults=True, label=graph
            )
            for graph, proto in made.items()
        }
        halves = {}
        if ORIGINAL_HALF in sessions:
            halves = {ORIGINAL_HALF: sessions.pop(ORIGINAL_HALF), HALVES: sessions["half"]}
        two = {graph: sessions[graph] for graph in staged}
        for size in sizes:
            runs = [("usual", 0, sessions, seconds)]
            if detector is not None:
                runs.append(("one goes on", 1, two, seconds / 2))
            if detector is not None and size > 1:
                runs.append(("all go on", size, two, seconds / 2))
            if halves:
                runs.append(("usual", 0, halves, seconds / 2))
            for traffic, goes, timed, span in runs:
                batches = _batches(usual, others, size, goes)
                found = time_batches(timed, interface, batches, span)
                rows += [
                    {"network": name, "threads": count, "traffic": traffic, **asdict(latency)}
                    for latency in found
                ]
                told = ", ".join(f"{latency.graph} {latency.ratio:.3f}" for latency in found)
                print(f"{name} batch {size} threads {count} {traffic}: {told}", flush=True)
        del sessions, two, halves, runs, timed
        gc.collect()
    return rows


def _samples(
    name: str,
    network: Network,
    detector: onnx.ModelProto | None,
    provider: str,
    *,
    packed: bool,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Samples that look usual to a detector, and others that go on."""
    x = blots(_SAMPLES, network.shape, 1)
    if packed or detector is None:
        return x, made_odd(x)
    odd = goes_on(detector, find_interface(network.proto), x, provider)
    print(f"{name}: {int(odd.sum())} of {len(x)} samples go on", flush=True)
    if odd.all() or not odd.any():
        raise SystemExit(f"{name}: no batches of which some samples go on and others do not")
    return x[~odd], x[odd]


def _batches(
    usual: npt.NDArray[Any], others: npt.NDArray[Any], size: int, odd: int
) -> list[npt.NDArray[Any]]:
    """Batches of a size, of which so many samples go on."""
    rng = np.random.default_rng(size)
    found = []
    for _ in range(_BATCHES):
        some = others[rng.integers(0, len(others), odd)]
        found.append(np.concatenate([some, usual[rng.integers(0, len(usual), size - odd)]]))
    return found


def mean(usual: float, one: float, every: float, size: int, share: float = SHARE) -> float:
    """What clean batches of a size take on average: each sample goes on with the probability
    ``share``; from one sample that does to all of them, time grows evenly."""
    grows = (every - one) / max(size - 1, 1)
    costs = [usual, *(one + more * grows for more in range(size))]
    return sum(
        comb(size, count) * share**count * (1 - share) ** (size - count) * cost
        for count, cost in enumerate(costs)
    )


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
        + (f"{kind['accelerator']}, " if "accelerator" in kind else "")
        + f"{kind['processor']}, {kind['processors']} processors, {kind['system']}"
        + (f" ({', '.join(kind['instructions'])})" if kind.get("instructions") else "")
        + f"; {result['date']}; by `{result['command']}`. Runs in turns on up to "
        f"{result.get('batches', _BATCHES)} batches of samples, the mean over these of the median "
        "of each one's runs; in brackets quartiles over single runs. Of a detector in two stages, "
        "in brackets "
        "where no sample of a batch goes on to the second stage, where one does, and where all do; "
        f"in front, the mean where each does with a chance of {100 * SHARE:g} %, which is what its "
        "first stage is set for on clean data." + (_OF_PACKED if result.get("packed") else ""),
    ]
    for graph, title in _TOLD.items():
        of_graph: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row["graph"] == graph and "traffic" in row:
                place = row["network"], row["threads"], row["batch_size"]
                of_graph.setdefault(place, {})[row["traffic"]] = row
        if not of_graph:
            continue
        lines += ["", f"## {title}", ""]
        lines += [f"| network | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        every, large = [], []
        for name in dict.fromkeys(name for name, *_ in of_graph):
            cells = [of_graph.get((name, *place)) for place in columns]
            found = [None if cell is None else _cell(cell) for cell in cells]
            told = ["-" if cell is None else cell[1] for cell in found]
            lines.append(f"| {name} | {' | '.join(told)} |")
            ratios = [cell[0] for cell in found if cell is not None]
            every += ratios
            large += ratios if name not in VICTIMS else []
        lines += ["", f"Mean {fmean(every):.3f}, worst {max(every):.3f}."]
        if 0 < len(large) < len(every):
            lines[-1] += (
                f" Without the small victims, mean {fmean(large):.3f}, worst {max(large):.3f}."
            )
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, dict[str, Any]]) -> tuple[float, str]:
    """A ratio, and what a table says of it."""
    usual = found["usual"]
    if len(found) == 1:
        low, high = usual["ratio_low"], usual["ratio_high"]
        return usual["ratio"], f"{usual['ratio']:.3f} ({low:.3f} to {high:.3f})"
    one = found["one goes on"]
    kinds = [row["ratio"] for row in (usual, one, found.get("all go on")) if row is not None]
    ratio = mean(usual["ratio"], one["ratio"], kinds[-1], usual["batch_size"])
    return ratio, f"{ratio:.3f} ({', '.join(f'{kind:.2f}' for kind in kinds)})"


if __name__ == "__main__":
    main()
