"""The installed command, run as its users run it: in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK = ("--epochs", "25", "--batch-size", "60", "--threads", "1", "--device", "cpu")
"""Enough learning to stop the backdoor of ``quadrants``."""

WRITTEN = ("model.detector.onnx", "model.hardened.onnx", "model.report.json")


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The message of a command that failed as it should: one line, and no result."""
        assert self.stdout == ""
        (line,) = self.stderr.splitlines()
        begin = "mmbm-onnx: error: "
        assert line.startswith(begin), line
        return line.removeprefix(begin)


@dataclass(frozen=True)
class Job:
    """A directory in which ``harden`` was run on ``model.onnx``."""

    folder: Path
    done: Done

    def __getattr__(self, name: str) -> Path:
        """The file ``model.<name>.onnx``, such as ``job.hardened``."""
        return self.folder / f"model.{name}.onnx"


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "mmbm_onnx", *map(str, args)]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def mmbm(*args: object, env: Mapping[str, str] | None = None, **options: Any) -> Done:
    """Run ``mmbm-onnx``; options are those of ``subprocess.run``."""
    done = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=300, env=env, **options
    )
    return Done(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too, by relative name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def default_signals() -> None:
    """Runs in a child before its program: what whoever runs the tests ignores, it does not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
