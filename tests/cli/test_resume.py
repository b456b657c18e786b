"""``harden --resume`` after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import QUICK, WRITTEN, command, contents, default_signals, mmbm
from quadrants import Case

CHECKPOINT = "model.hardened.onnx.checkpoint"
LONG = ("--epochs", "300", "--batch-size", "60", "--threads", "1", "--device", "cpu")


def arguments(case: Case, *more: str) -> tuple[object, ...]:
    return ("harden", "model.onnx", "--clean-dir", case.npz, *LONG, *more)


@pytest.fixture
def killed(case: Case, tmp_path: Path) -> Path:
    """A folder in which learning was killed after its first states were kept."""
    folder = tmp_path / "killed"
    folder.mkdir()
    shutil.copy(case.model, folder)
    process = subprocess.Popen(
        command(*arguments(case, "--checkpoint-every", "0")),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=default_signals,
    )
    while process.poll() is None and not (folder / CHECKPOINT).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert sorted(contents(folder)) == ["model.hardened.onnx.checkpoint", "model.onnx"]
    return folder


def test_the_files_are_those_of_a_run_that_was_not_stopped(
    case: Case, killed: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(case.model, whole)
    assert mmbm(*arguments(case), cwd=whole).status == 0
    assert mmbm(*arguments(case, "--resume"), cwd=killed).status == 0
    found, wanted = contents(killed), contents(whole)
    assert sorted(found) == sorted(wanted) == sorted(["model.onnx", *WRITTEN])
    for name in found:
        if name.endswith(".onnx"):
            assert found[name] == wanted[name], name


def test_a_state_is_neither_overwritten_nor_ignored_unasked(case: Case, killed: Path) -> None:
    before = contents(killed)
    done = mmbm(*arguments(case), cwd=killed)
    assert done.status == 2
    assert done.error.startswith(CHECKPOINT)
    assert "--resume" in done.error
    assert contents(killed) == before
    # With another option it is another job.
    done = mmbm(*arguments(case, "--resume", "--seed", "5"), cwd=killed)
    assert done.status == 2
    assert "another job" in done.error
    assert contents(killed) == before
    assert mmbm(*arguments(case, "--force"), cwd=killed).status == 0
    assert sorted(contents(killed)) == sorted(["model.onnx", *WRITTEN])


def test_a_damaged_state_is_told_in_one_line(case: Case, killed: Path) -> None:
    whole = (killed / CHECKPOINT).read_bytes()
    (killed / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    done = mmbm(*arguments(case, "--resume"), cwd=killed)
    assert done.status == 2
    assert done.error.startswith(f"{CHECKPOINT}: is no checkpoint, or damaged")


def test_no_file_of_the_users_is_taken_for_a_state(case: Case, tmp_path: Path) -> None:
    shutil.copy(case.model, tmp_path / "model.onnx")
    shutil.copy(case.model, tmp_path / "a.onnx.checkpoint")
    (tmp_path / "b.onnx.checkpoint").write_text("precious")
    (tmp_path / "c.onnx.checkpoint").symlink_to("nowhere")
    (tmp_path / "d.onnx.checkpoint").mkdir()

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    before = files()
    clean = ("--clean-dir", case.npz, "--force", "--epochs", "2")
    for args, word in [
        (("a.onnx.checkpoint", *clean, "-o", "a.onnx"), "choose another name"),
        (("model.onnx", *clean, "-o", "b.onnx"), "is no checkpoint"),
        (("model.onnx", *clean, "-o", "c.onnx"), "is no checkpoint"),
        (("model.onnx", *clean, "-o", "d.onnx"), "is no checkpoint"),
        (("model.onnx", *clean, "-o", "e.onnx", "--report", "e.onnx.checkpoint"), "another name"),
    ]:
        done = mmbm("harden", *args, cwd=tmp_path)
        assert done.status == 2
        assert word in done.error
        assert files() == before
        assert (tmp_path / "c.onnx.checkpoint").is_symlink()


def test_a_run_that_fails_early_leaves_the_state(case: Case, killed: Path) -> None:
    before = contents(killed)
    done = mmbm(*arguments(case, "--force", "--logits", "nope"), cwd=killed)
    assert done.status == 2
    assert contents(killed) == before


def test_an_output_whose_state_has_no_name_is_written_all_the_same(
    case: Case, tmp_path: Path
) -> None:
    shutil.copy(case.model, tmp_path / "model.onnx")
    name = "x" * 248
    args = ("harden", "model.onnx", "--clean-dir", case.npz, "-o", name, *QUICK)
    assert mmbm(*args, cwd=tmp_path).status == 0
    assert name in contents(tmp_path)
    for odd in (".", "/", ""):
        done = mmbm("harden", "model.onnx", "--clean-dir", case.npz, "-o", odd, cwd=tmp_path)
        assert done.status == 2
        assert "internal" not in done.stderr
