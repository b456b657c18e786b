"""The tables of ``docs/portability.md``, from what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.portability.graphs import GRAPHS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/portability.json"
PAGE = ROOT / "docs/portability.md"
_BEGIN, _END = "<!-- tables: make portability -->", "<!-- end of tables -->"
_TOLD = {
    "original": "original",
    "hardened": "hardened, folded",
    "hardened-min": "hardened, `--fold never`",
    "detector": "detector, two stages (If)",
    "detector-one-stage": "detector, `--cascade never`",
    "detector-float": "detector, two stages, `--shadow float`",
    "detector-float-one-stage": "detector, `--cascade never --shadow float`",
    "detector-int8": "detector, two stages, `--shadow int8`",
    "detector-int8-one-stage": "detector, `--cascade never --shadow int8`",
}

Row = dict[str, Any]


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with tables of this result in place of those it has."""
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page has to hold {_BEGIN} and {_END} once")
    return pattern.sub(lambda _: f"{_BEGIN}\n\n{render(result)}\n{_END}", page)


def render(result: dict[str, Any]) -> str:
    """All tables, Markdown."""
    parts = [
        _runtimes(result),
        "### By kind of graph",
        "Networks whose graph runs, samples that are decided as in ONNX Runtime (class, flag, "
        "suspected and corrected class), and the largest differences of logits, in parts of the "
        "network's largest one, and of p-values.",
        _by_graph(result),
        "### By network",
        "Samples that are decided otherwise; numbers in brackets are the notes below.",
        _by_network(result),
    ]
    return "\n\n".join(parts) + "\n"


def _runtimes(result: dict[str, Any]) -> str:
    libraries = result["libraries"]
    told = [[f"`{name}`", version] for name, version in result["runtimes"].items()]
    told += [[f"`{name}`", f"not measured: {why}"] for name, why in result["missing"].items()]
    machine = result["machine"]
    line = (
        f"Measured on {result['date']}, {machine['system']}, {machine['processor']}; written with "
        f"onnx {libraries['onnx']}, onnxruntime {libraries['onnxruntime']} and torch "
        f"{libraries['torch']}."
    )
    return f"{line}\n\n{_table(['runtime', 'version'], told)}"


def _by_graph(result: dict[str, Any]) -> str:
    rows = []
    for graph in GRAPHS:
        for runtime in list(result["runtimes"])[1:]:
            here = [r for r in result["rows"] if (r["graph"], r["runtime"]) == (graph, runtime)]
            ran = [row for row in here if "error" not in row]
            if not here:
                continue
            alike = sum(row["samples"] - row["differ"] for row in ran)
            kept = [row["kept"] for row in ran if row["kept"] is not None]
            rows.append(
                [
                    _TOLD[graph],
                    f"`{runtime}`",
                    f"{len(ran)} of {len(here)}",
                    f"{alike} of {sum(row['samples'] for row in ran)}" if ran else "-",
                    _largest(row["logits"] / row["largest"] for row in ran),
                    _largest(row["p_value"] for row in ran if row["p_value"] is not None),
                    {True: "yes", False: "no"}[all(kept)] if kept else "-",
                ]
            )
    heads = ["graph", "runtime", "runs", "decided alike", "logits", "p-values", "bits kept"]
    return _table(heads, rows)


def _by_network(result: dict[str, Any]) -> str:
    notes: dict[str, int] = {}

    def note(text: str) -> str:
        return f"[{notes.setdefault(text, len(notes) + 1)}]"

    rows = []
    runtimes = list(result["runtimes"])[1:]
    kinds = [r for r in result["rows"] if r["runtime"] not in runtimes]
    samples = {(row["network"], row["graph"]): str(row["samples"]) for row in kinds}
    for name, known in result["networks"].items():
        for graph in GRAPHS:
            if why := known["refused"].get(graph):
                cells = [f"not written {note(why)}", *[""] * (len(runtimes) - 1)]
            else:
                cells = [
                    _cell(row, note)
                    for runtime in runtimes
                    for row in result["rows"]
                    if (row["network"], row["graph"], row["runtime"]) == (name, graph, runtime)
                ]
            rows.append(
                [
                    f"{known['what']}, opset {known['opset']}",
                    _TOLD[graph],
                    samples.get((name, graph), "-"),
                    *cells,
                ]
            )
    table = _table(["network", "graph", "samples", *(f"`{name}`" for name in runtimes)], rows)
    listed = "\n".join(f"{number}. {_plain(text)}" for text, number in notes.items())
    return f"{table}\n\n{listed}" if notes else table


def _cell(row: Row, note: Any) -> str:
    if "error" in row:
        return f"fails {note(row['error'])}"
    return str(row["differ"])


def _largest(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "-"
    return f"{max(found):.0e}" if max(found) else "0"


def _plain(text: str) -> str:
    """An error as code, whatever is in it."""
    return f"`{text.replace('`', chr(39))}`"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines
    )
