"""How much memory a graph takes in ONNX Runtime, measured in a process of its own, which loads one
graph, runs it a few times, and prints its peak in bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import ModelError
from mmbm_onnx.runtime.providers import load_onnxruntime
from mmbm_onnx.runtime.sessions import Session

_RUNS = 3
_STATUS = Path("/proc/self/status")


def peak_memory(
    model: Path,
    feed: tuple[str, npt.NDArray[Any]],
    *,
    provider: str | None = None,
    threads: int | None = None,
) -> int | None:
    """Bytes that loading and running a graph adds to what a process with ONNX Runtime takes; of the
    host's memory, not of a GPU's. None where the system does not tell (it does on Linux).

    Args:
        model: A file that has been read and found sound.
        feed: Name of its input and a batch.
        provider, threads: Of ONNX Runtime.

    Raises:
        ModelError: The graph cannot be run.
    """
    if not _STATUS.exists() or not sys.executable:
        return None
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.npy"
        np.save(batch, feed[1], allow_pickle=False)
        request = {
            "model": str(model),
            "input": feed[0],
            "batch": str(batch),
            "provider": provider,
            "threads": threads,
        }
        found = subprocess.run(
            [sys.executable, "-c", _program()],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        return int(found.stdout)
    except ValueError:
        last = (found.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"{model}: its memory cannot be measured: {last[:300]}") from None


def _program() -> str:
    """What the process runs. Files in the current directory, where a stranger's model may lie, are
    no modules to it."""
    root = str(Path(__file__).resolve().parents[2])
    return (
        f"import sys; sys.path[:] = [path for path in sys.path if path] + [{root!r}]\n"
        f"from {__name__} import main; main()"
    )


def main() -> None:
    """Measure what standard input asks for, and print it."""
    load_onnxruntime()  # before memory is looked at for the first time
    print(_measure(json.load(sys.stdin)))


def _measure(request: dict[str, Any]) -> int:
    feed = {request["input"]: np.load(request["batch"], allow_pickle=False)}
    before = memory_of_this_process("VmRSS")
    session = Session(
        Path(request["model"]), provider=request["provider"], threads=request["threads"]
    )
    for _ in range(_RUNS):
        session.run(None, feed)
    return max(memory_of_this_process("VmHWM") - before, 0)


def memory_of_this_process(name: str) -> int:
    """A figure of this process in bytes. (``getrusage`` may tell its parent's peak instead.)"""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")
