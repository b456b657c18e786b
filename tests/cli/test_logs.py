"""``--log-format json``: every line on stderr is one JSON object."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import command, default_signals, environment, mmbm

import mmbm_onnx
from mmbm_onnx.errors import NothingToHardenError

JSON = ("--log-format", "json")
QUICK = ("--method", "mmbm", "--epochs", "2", "--threads", "1", "--device", "cpu")


def events(stderr: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stderr.splitlines()]
    for event in found:
        assert list(event)[:3] == ["time", "level", "message"]
        assert datetime.fromisoformat(event["time"].replace("Z", "+00:00")).utcoffset() is not None
        assert event["level"] in ("debug", "info", "warning", "error")
        assert "\x1b" not in json.dumps(event)
    return found


def test_a_hardening_tells_its_stages(inputs: Path) -> None:
    colours = environment(FORCE_COLOR="1")
    args = ("harden", "model.onnx", "--clean-dir", "clean.npz", *QUICK, *JSON, "--no-detector")
    done = mmbm(*args, cwd=inputs, env=colours)
    assert done.status in (0, 1)
    told = [event for event in events(done.stderr) if "stage" in event]
    stages = list(dict.fromkeys(event["stage"] for event in told))
    assert stages[0] == "read" and {"learn", "write"} <= set(stages)
    last = [event for event in told if event["stage"] == "learn"][-1]
    assert (last["step"], last["epoch"]) == (last["total"], last["epochs"])
    assert "accuracy" in last
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
    assert last.keys() - {"fidelity", "penalty", "weight"} <= set(re.findall(r"`(\w+)`", page))
    quiet = mmbm(*args, "--force", "-q", cwd=inputs)
    assert (quiet.status, quiet.stderr) == (done.status, "")


def test_warnings_are_events(files: Path) -> None:
    clean = ("--clean-dir", "clean.npz", "--scale", "0.5")
    done = mmbm("verify", "original.onnx", "hardened.onnx", *clean, *JSON, cwd=files)
    assert done.status == 0, done.stderr
    (event,) = events(done.stderr)
    assert event["level"] == "warning"
    assert "the preprocessing options do not apply" in event["message"]
    assert "PASS" in done.stdout


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("inspect", "clean.npz", *JSON), "ModelError", "not an ONNX model"),
        (("inspect", "none.onnx", *JSON), "BadParameter", "does not exist"),
        (("hardne", "--log-format=json"), "UsageError", "did you mean 'harden'"),
        (("harden", "--frobnicate", *JSON), "NoSuchOption", "--frobnicate"),
        (("harden", *JSON), "MissingParameter", "Missing argument"),
    ],
)
def test_errors_are_events(files: Path, args: tuple[str, ...], error: str, message: str) -> None:
    done = mmbm(*args, cwd=files)
    assert (done.status, done.stdout) == (2, "")
    (event,) = events(done.stderr)
    assert (event["level"], event["exit_status"], event["error"]) == ("error", 2, error)
    assert message in event["message"]


def test_the_exit_status_is_told(run, files, monkeypatch) -> None:
    def inspect(*args: object, **options: object) -> None:
        raise NothingToHardenError("no activation")

    monkeypatch.setitem(mmbm_onnx.__dict__, "inspect", inspect)
    result = run("inspect", files / "original.onnx", *JSON)
    (event,) = events(result.stderr)
    assert (result.exit_code, event["exit_status"]) == (3, 3)
    assert event["error"] == "NothingToHardenError"


def test_what_is_logged_comes_with_its_origin(run, files, monkeypatch) -> None:
    import logging
    import warnings

    def inspect(*args: object, **options: object) -> None:
        logging.getLogger("some.library").info("looked at %s", "it")
        warnings.warn_explicit("odd", UserWarning, "library.py", 1)
        raise KeyError("lost")

    monkeypatch.setitem(mmbm_onnx.__dict__, "inspect", inspect)
    result = run("inspect", files / "original.onnx", *JSON, "-vv")
    found = events(result.stderr)
    assert {"logger": "some.library", "message": "looked at it", "level": "info"}.items() <= (
        found[0].items()
    )
    assert found[-1]["message"].startswith("internal error: KeyError")
    assert "Traceback" in found[-1]["traceback"]
    # The next run is one of its own.
    assert run("inspect", "nowhere").stderr.startswith("mmbm-onnx: error: ")


def test_a_guide_is_one_event(monkeypatch) -> None:
    from mmbm_onnx_cli import output

    lines: list[str] = []
    monkeypatch.setattr(output, "_write", lines.append)
    output.set_log_format("json")
    try:
        output.explain(["one", "two"], "error")
    finally:
        output.set_log_format("text")
    (event,) = events("".join(lines))
    assert event["message"] == "one\ntwo"


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_being_terminated_is_an_event(inputs: Path) -> None:
    args = ("harden", "model.onnx", "--clean-dir", "clean.npz", "--epochs", "100000", *JSON)
    process = subprocess.Popen(
        command(*args, "--threads", "1"),
        cwd=inputs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 143
    last = events(first + rest)[-1]
    assert (last["message"], last["exit_status"]) == ("terminated", 143)
