"""Run hardened and detector graphs in other runtimes and compare what they decide.

    python -m benchmarks.portability

Needs the package openvino, and Node.js with npm, which gets two packages; what is not there is told
on the page. Writes ``benchmarks/results/portability.json`` and the tables of
``docs/portability.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.portability.graphs import written
from benchmarks.portability.measure import measure
from benchmarks.portability.networks import NETWORKS, victim
from benchmarks.portability.page import PAGE, RESULTS, with_tables
from benchmarks.portability.runtimes import Missing, runtimes
from benchmarks.portability.runtimes.node import install
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.graph.walk import standard_opset
from mmbm_onnx.report.pieces import library_versions

ROOT = Path(__file__).resolve().parents[2]
_NPM = ("onnxruntime-node", "onnxruntime-web")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NETWORK")
    parser.add_argument("--samples", type=int, default=96, help="clean ones, and triggered ones")
    parser.add_argument("--epochs", type=int, default=5, help="of learning bounds")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/portability")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.page:
        result = run(options)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(with_tables(PAGE.read_text(), json.loads(options.output.read_text())))
    print(f"{PAGE.relative_to(ROOT)} written")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All networks in all runtimes that are here."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    node = options.folder / "node"
    if shutil.which("npm") and not all((node / "node_modules" / name).exists() for name in _NPM):
        install(node, *_NPM)
    chosen, missing, versions = {}, {}, {}
    for name, runtime in runtimes(node).items():
        try:
            versions[name] = runtime.version()
            chosen[name] = runtime
        except Missing as error:
            missing[name] = str(error)
    networks, rows = {}, []
    for name in options.only:
        made = victim(NETWORKS[name])
        graphs, refused = written(made, options.folder / name, options.epochs)
        found = measure(graphs, made, chosen, options.samples)
        rows += [{"network": name, **row} for row in found]
        networks[name] = {
            "what": NETWORKS[name].what,
            "opset": standard_opset(made.proto.opset_import),
            "operators": sorted({node.op_type for node in made.proto.graph.node}),
            "refused": refused,
        }
        bad = [row for row in found if "error" in row or row["differ"]]
        print(f"{name}: {len(found)} runs, {len(bad)} not alike", file=sys.stderr, flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "system": platform.system(),
        "libraries": library_versions(),
        "runtimes": versions,
        "missing": missing,
        "networks": networks,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
