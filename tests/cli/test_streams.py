"""stdout and stderr that cannot be written to, or are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import WRITTEN, command

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")

HARDEN = ("harden", "model.onnx", "--clean-dir", "clean.npz")
HARDEN += ("--method", "mmbm", "--epochs", "1", "--threads", "1")


def shell(folder: Path, *args: object, to: str) -> subprocess.CompletedProcess[str]:
    """Run the command with streams redirected as a shell would."""
    line = " ".join(f"'{word}'" for word in command(*args))
    return subprocess.run(
        ["bash", "-c", f"{line} {to}"], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def status(inputs: Path) -> int:
    """What the job ends with when it can be told."""
    done = shell(inputs, *HARDEN, to="")
    assert done.returncode in (0, 1) and done.stdout
    for name in WRITTEN:
        (inputs / name).unlink()
    return done.returncode


@pytest.mark.parametrize("style", ["text", "json"])
def test_written_files_count_where_the_summary_cannot_be_told(inputs, status, style) -> None:
    done = shell(inputs, *HARDEN, "--format", style, to=">/dev/full")
    assert done.returncode == status
    assert all((inputs / name).exists() for name in WRITTEN)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mmbm-onnx: warning: cannot write to stdout: No space left")
    assert last.endswith("model.report.json")


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_files_are_whole_without_streams(inputs, status, to) -> None:
    import onnx

    assert shell(inputs, *HARDEN, to=to).returncode == status
    for name in WRITTEN[:2]:
        onnx.checker.check_model(onnx.load(inputs / name), full_check=True)


def test_a_result_that_cannot_be_told_is_no_result(inputs: Path) -> None:
    done = shell(inputs, "inspect", "model.onnx", to=">/dev/full")
    assert done.returncode == 2
    assert done.stderr == "mmbm-onnx: error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_bad_input_is_2_even_where_nobody_can_be_told(inputs: Path, to: str) -> None:
    (inputs / "text.onnx").write_text("no model")
    assert shell(inputs, "inspect", "text.onnx", to=to).returncode == 2
    assert shell(inputs, "inspect", "missing.onnx", to=to).returncode == 2
    args = ("verify", "model.onnx", "text.onnx", "--clean-dir", "clean.npz")
    assert shell(inputs, *args, to=to).returncode == 2


def test_closed_streams_get_no_file(tmp_path: Path) -> None:
    program = """
import os
from mmbm_onnx.__main__ import _open_standard_streams
os.close(1); os.close(2)
_open_standard_streams()
print(os.open(os.devnull, os.O_RDONLY), file=open("number", "w"))
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert int((tmp_path / "number").read_text()) > 2
