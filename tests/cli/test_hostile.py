"""Every hostile case: its exit status, one line, nothing written, in bounded memory and time.

Torch cannot be imported in these runs, where it is not needed to find out, so that nobody waits
seconds to hear of a wrong path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Done, command, contents, environment
from hostile import CASES

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="measures memory by wait4")

MEASURED = Path(__file__).with_name("measured.py")
_MEMORY = 700  # MiB; a run that gets as far as ONNX Runtime takes some 200
_WITH_TORCH = 1500
_SECONDS = 30  # of processor time


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_in_one_line_and_nothing_is_written(
    inputs: Path, without_torch: dict[str, str], name: str
) -> None:
    case = CASES[name]
    case.prepare(inputs)
    before = _contents(inputs)
    figures = inputs.parent / "figures.json"
    ran = subprocess.run(
        [sys.executable, MEASURED, figures, *command("harden", "model.onnx", *case.args)],
        cwd=inputs,
        env=environment() if case.torch else without_torch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    status, memory, seconds = json.loads(figures.read_text())
    done = Done(status, ran.stdout, ran.stderr)
    assert done.status == case.status, done.stderr
    assert case.message in done.error
    assert _contents(inputs) == before
    assert memory < (_WITH_TORCH if case.torch else _MEMORY) * 1024
    assert seconds < _SECONDS


def _contents(folder: Path) -> dict[str, bytes] | list[str]:
    """Every file, or, where there are pipes, which cannot be read, every name."""
    if any(path.is_fifo() for path in folder.rglob("*")):
        return sorted(str(path) for path in folder.rglob("*"))
    return contents(folder)
