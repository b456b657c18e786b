"""A cell of the benchmark: one victim, one method, so many clean samples; and where it is kept."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mmbm_onnx
from benchmarks.defence import measures, victims
from benchmarks.defence.peers import PEERS, modules_of
from benchmarks.defence.victims import Trained, Victim
from mmbm_onnx.learning.settings import METHODS, settings_for
from mmbm_onnx.pipeline.devices import torch_settings

NONE = "none"
_ROOMS = (
    "data", "evaluation", "execution", "graph", "learning", "pipeline", "rewriting", "runtime",
)  # fmt: skip
ALL_METHODS = (NONE, *METHODS, *PEERS)
_RATE = 0.01  # requested of the detector
_LIBRARIES = ("mmbm-onnx", "torch", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Cell:
    """What is measured in one go.

    Attributes:
        victim: On whom.
        method: ``"none"``, a method of ours, or a peer.
        clean: Number of clean samples that the method gets.
    """

    victim: Victim
    method: str
    clean: int = 500

    @property
    def label(self) -> str:
        return f"{self.victim.label} {self.method} {self.clean}"

    def key(self) -> str:
        """What makes this cell the same as one already measured: SHA-256 in hex."""
        made_by = settings_for(self.method).describe() if self.method in METHODS else None
        if self.method in PEERS:
            made_by = victims.code(*(victims.file_of(name) for name in modules_of(self.method)))
        parts = [asdict(self), self.victim.digest(), made_by]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run(cell: Cell, store: Path, cifar: Path | None = None, device: str = "cpu") -> dict[str, Any]:
    """Measure a cell on one thread.

    Args:
        cell: Which.
        store: The cache of victims.
        cifar: Where CIFAR-10 lies, if that is wanted.
        device: Where defences learn, ``"cpu"`` or ``"cuda"``; victims are trained on the CPU, and
            measured there.

    Returns:
        A record for ``append``: the cell, ``original`` and, by method, ``hardened`` and
        ``detector`` or ``repaired``, each with figures in percent; seconds; versions.
    """
    trained = victims.make(cell.victim, store, cifar=cifar)
    original, _, _ = measures.measure(trained, trained.model)
    record: dict[str, Any] = {
        "key": cell.key(),
        "victim": asdict(cell.victim),
        "method": cell.method,
        "clean": cell.clean,
        "trained": trained.trained,
        "original": original,
    }
    started = time.perf_counter()
    if cell.method in PEERS:
        record["repaired"] = _repaired(cell, trained, original, device)
    elif cell.method != NONE:
        record |= _bounded(cell, trained, original, device)
    record["seconds"] = round(time.perf_counter() - started, 1)
    learned_on_gpu = device == "cuda" and cell.method != NONE
    record["device"] = torch.cuda.get_device_name() if learned_on_gpu else "cpu"
    record["versions"] = {name: version(name) for name in _LIBRARIES}
    return record


@cache
def our_code() -> str:
    """SHA-256 of the code that learns bounds and makes graphs, comments and docstrings aside, in
    hex: a record of it is told from one of another state, but not measured again for it."""
    package = Path(mmbm_onnx.__file__).parent
    found = hashlib.sha256()
    for file in sorted(file for room in _ROOMS for file in (package / room).rglob("*.py")):
        tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree):
            documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                del node.body[0]
        found.update(ast.dump(tree).encode())
    return found.hexdigest()


def _bounded(
    cell: Cell, trained: Trained, original: measures.Figures, device: str
) -> dict[str, Any]:
    x, y = (part[: cell.clean] for part in trained.clean)
    result = mmbm_onnx.harden(
        trained.model,
        (x, y),
        method=cell.method,
        false_positive_rate=_RATE,
        seed=cell.victim.seed,
        threads=1,
        device=device,
    )
    assert result.detector is not None
    found: dict[str, Any] = {}
    for role, proto in (("hardened", result.hardened), ("detector", result.detector)):
        figures, clean, attacked = measures.measure(trained, proto.SerializeToString())
        if role == "detector":
            figures |= measures.detection(trained, clean, attacked)
        found[role] = {**figures, "der": measures.der(original, figures)}
    found["code"] = our_code()
    found["settings"] = result.report["method"]["settings"]
    found["warnings"] = list(result.warnings)
    return found


def _repaired(
    cell: Cell, trained: Trained, original: measures.Figures, device: str
) -> dict[str, Any]:
    x, y = (part[: cell.clean] for part in trained.clean)
    torch.manual_seed(cell.victim.seed)
    network = trained.network().to(device, memory_format=torch.channels_last)  # faster on CPUs
    with torch_settings(1):
        network = PEERS[cell.method](network, x, y, cell.victim.seed).cpu()
    path = trained.folder / f"{cell.method}-{cell.clean}-{os.getpid()}.onnx"
    try:
        victims.export(network, x.shape[1:], path)
        figures, _, _ = measures.measure(trained, path)
    finally:
        path.unlink(missing_ok=True)
    return {**figures, "der": measures.der(original, figures)}


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines; a last line cut short is left out."""
    if not path.exists():
        return []
    records = []
    lines = path.read_text().split("\n")
    for place, line in enumerate(lines):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if place != len(lines) - 1:
                raise SystemExit(f"{path}: line {place + 1} is not JSON") from None
    return records


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record; what an interrupted write left of a line is taken away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(0)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole != size:
                file.truncate(whole)
        file.write(json.dumps(record).encode() + b"\n")


def missing(cells: Iterable[Cell], records: Iterable[dict[str, Any]]) -> list[Cell]:
    """The cells that no record is of."""
    done = {record["key"] for record in records}
    return [cell for cell in cells if cell.key() not in done]


def complete(everything: Sequence[Cell], records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of the cells, without methods that are still to be measured on some victims: a
    mean over others than the rest has would be compared with theirs.

    What counts as one is a method with so many clean samples, on victims with their attack's own
    share of poison or on those with others.
    """
    found = {record["key"]: record for record in records}
    groups: dict[tuple[str, int, bool], list[str]] = {}
    for cell in everything:
        kind = (cell.method, cell.clean, cell.victim.share is None)
        groups.setdefault(kind, []).append(cell.key())
    whole = [keys for keys in groups.values() if all(key in found for key in keys)]
    return [found[key] for keys in whole for key in keys]
