"""``harden`` stopped at any moment: all of its files, or none, and nothing else."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import WRITTEN, command, contents, default_signals
from quadrants import Case

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

BRIEF = ("--method", "mmbm", "--epochs", "1", "--threads", "1", "--device", "cpu")
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
MOMENTS = 4  # for each signal


def start(folder: Path, case: Case) -> subprocess.Popen[str]:
    folder.mkdir()
    shutil.copy(case.model, folder)
    args = ("harden", "model.onnx", "--clean-dir", case.npz, *BRIEF)
    return subprocess.Popen(
        command(*args),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )


def wait_until_signals_are_ours(process: subprocess.Popen[str]) -> None:
    """Python's own start, a few hundredths of a second, is Python's to interrupt."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
        if int(caught, 16) >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_all_or_nothing(case: Case, tmp_path: Path) -> None:
    whole = float("inf")
    for folder in (tmp_path / "cold", tmp_path / "whole"):
        began = time.monotonic()
        process = start(folder, case)
        _, stderr = process.communicate(timeout=300)
        whole = min(whole, time.monotonic() - began)
        assert process.returncode == 0, stderr
    inputs = {"model.onnx": case.model.read_bytes()}
    outputs = sorted(["model.onnx", *WRITTEN])
    assert sorted(contents(tmp_path / "whole")) == outputs

    rng = random.Random(20231)
    stopped = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), 0)
    for number in stopped:
        for turn in range(MOMENTS):
            folder = tmp_path / f"{number.name}-{turn}"
            process = start(folder, case)
            wait_until_signals_are_ours(process)
            # One moment in each part of the run; the last reaches past its end.
            time.sleep(whole * (turn + rng.random()) / MOMENTS * 1.05)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=300)
            found = contents(folder)
            if process.returncode == 0:
                assert sorted(found) == outputs
                continue
            stopped[number] += 1
            if number in WORDS:
                assert process.returncode == 128 + number
                assert stderr == f"mmbm-onnx: {WORDS[number]}\n"
            else:
                assert (process.returncode, stderr) == (-number, "")
            # A signal that comes while files get their names is heeded when all have theirs.
            assert found == inputs or sorted(found) == outputs
    # On a busy machine runs differ in length; that each signal met a run at work is enough.
    assert all(count >= 1 for count in stopped.values()), stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_signal_among_the_writes_is_heeded_after_them(
    tmp_path: Path, number: signal.Signals, call: str
) -> None:
    program = f"""
import os, signal
from pathlib import Path
from mmbm_onnx_cli.interrupts import exit_on_signals
from mmbm_onnx.graph.write import write_files
exit_on_signals()
real = os.{call}
def signalled(*args, **options):
    os.kill(os.getpid(), {int(number)})
    return real(*args, **options)
os.{call} = signalled
write_files({{Path(name): name.encode() for name in ("a", "b", "c")}})
print("never told")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=default_signals,
    )
    word = WORDS.get(number, "terminated")
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == f"mmbm-onnx: {word}\n"
    assert contents(tmp_path) == {name: name.encode() for name in ("a", "b", "c")}


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    program = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from mmbm_onnx_cli.interrupts import exit_on_signals
exit_on_signals()
os.kill(os.getpid(), signal.SIGINT)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")
