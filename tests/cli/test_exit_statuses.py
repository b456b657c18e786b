"""Exit statuses come first: what a script sees must be true."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import toy_models
from command_line import default_signals
from onnx import numpy_helper

import mmbm_onnx
from mmbm_onnx.errors import (
    DataError,
    MmbmError,
    ModelError,
    NothingToHardenError,
    OptionError,
    OutputError,
    ParityError,
    RewriteError,
    RuntimeMissingError,
)


def verify_args(files: Path, hardened: str = "hardened.onnx") -> list[object]:
    return ["verify", files / "original.onnx", files / hardened, "--clean-dir", files / "clean.npz"]


def raising(error: BaseException):
    def api(*args: object, **options: object) -> None:
        raise error

    return api


def test_verify_of_good_files_exits_with_0(run, files) -> None:
    result = run(*verify_args(files), "--detector", files / "detector.onnx")
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("PASS: all gates hold")
    assert "error" not in result.stderr


def test_verify_of_zeroed_bounds_exits_with_1(run, files) -> None:
    proto = toy_models.hardened().proto
    for tensor in proto.graph.initializer:
        if tensor.name == "bound":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 3), np.float32), "bound"))
    onnx.save(proto, files / "zeroed.onnx")
    result = run(*verify_args(files, "zeroed.onnx"))
    assert result.exit_code == 1
    assert "FAIL  hardened_accuracy_drop" in result.stdout


def test_verify_of_a_text_file_exits_with_2_and_one_line(run, files) -> None:
    (files / "text.onnx").write_text("This is no model.\n" * 20)
    result = run(*verify_args(files, "text.onnx"))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"mmbm-onnx: error: {files / 'text.onnx'}: not an ONNX model")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NothingToHardenError("no activation takes a bound"), 3),
        *(
            (kind("what went wrong"), 2)
            for kind in (
                DataError,
                MmbmError,
                ModelError,
                OptionError,
                OutputError,
                ParityError,
                RewriteError,
                RuntimeMissingError,
            )
        ),
    ],
)
def test_each_error_is_one_line_and_its_status(run, files, monkeypatch, error, status) -> None:
    monkeypatch.setitem(mmbm_onnx.__dict__, "harden", raising(error))
    result = run("harden", files / "original.onnx", "--clean-dir", files / "clean.npz")
    assert result.exit_code == status
    assert result.stderr == f"mmbm-onnx: error: {error}\n"
    assert result.stdout == ""


def test_an_error_nobody_foresaw_is_one_line_too(run, files, monkeypatch) -> None:
    monkeypatch.setitem(mmbm_onnx.__dict__, "inspect", raising(KeyError("lost\nkey")))
    result = run("inspect", files / "original.onnx")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmbm-onnx: internal error: KeyError: ")
    assert line.endswith("(run with --debug for the traceback)")


@pytest.mark.parametrize("flags", [["--debug"], ["-v", "-v"], ["-vv"]])
def test_debugging_shows_the_traceback(run, files, monkeypatch, flags) -> None:
    monkeypatch.setitem(mmbm_onnx.__dict__, "inspect", raising(KeyError("lost")))
    result = run("inspect", files / "original.onnx", *flags)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1] == "mmbm-onnx: internal error: KeyError: 'lost'"


def test_running_out_of_memory_is_told_as_such(run, files, monkeypatch) -> None:
    monkeypatch.setitem(mmbm_onnx.__dict__, "inspect", raising(MemoryError()))
    result = run("inspect", files / "original.onnx")
    assert (result.exit_code, "out of memory" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing command: bench, completion, harden, inspect, "),
        (["harden", "--force"], "Missing argument 'MODEL'. (see `mmbm-onnx harden --help`)"),
        (["hardne"], "No such command 'hardne'; did you mean 'harden'?"),
        (["HARDEN"], "No such command 'HARDEN'; did you mean 'harden'?"),
        (["attack"], "No such command 'attack'; there are: bench, completion, harden, "),
        (["verify", "--clan-dir", "x"], "Did you mean '--clean-dir'?"),
        (["--config", "x"], "--config stands behind the command: mmbm-onnx "),
        (["inspect", __file__[:-1]], "does not exist; did you mean 'test_exit_statuses.py'?"),
        (["harden", __file__], "Missing option '--clean-dir'. Clean samples: a directory with"),
        (["inspect", "nowhere.onnx"], "Path 'nowhere.onnx' does not exist."),
        (["verify", "--max-accuracy-drop", "2"], "'2' is not a fraction from 0 to 1"),
        (["verify", "--max-accuracy-drop", "nan"], "'nan' is not a fraction from 0 to 1"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_wrong_usage_is_one_line_that_points_at_help(run, args, message) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message in line
    assert "--help`)" in line


def test_interrupting_exits_with_130_and_one_line(files: Path) -> None:
    program = f"""
import sys, time
import mmbm_onnx
from mmbm_onnx_cli.main import main
def harden(*args, **options):
    print("ready", flush=True)
    time.sleep(60)
mmbm_onnx.harden = harden
main(["harden", {str(files / "original.onnx")!r}, "--clean-dir", {str(files / "clean.npz")!r}])
"""
    before = sorted(files.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "mmbm-onnx: interrupted\n"
    assert sorted(files.iterdir()) == before


def test_a_reader_that_leaves_does_not_change_the_status(files: Path) -> None:
    args = " ".join(f"'{arg}'" for arg in verify_args(files))
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m mmbm_onnx {args} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert "Error" not in done.stderr
