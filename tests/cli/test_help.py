"""Help answers at once, and says everything."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time

import pytest

from mmbm_onnx import __version__
from mmbm_onnx.learning.settings import METHODS

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "PIL", "tqdm", "onnx_graphsurgeon")


def loaded_by(*args: object) -> tuple[int, set[str]]:
    """Exit status of the command line in a fresh process, and the heavy packages it imported."""
    program = f"""
import sys
from mmbm_onnx_cli.main import main
try:
    main({[str(arg) for arg in args]!r})
except SystemExit as error:
    status = error.code
found = {{name.split(".")[0] for name in sys.modules}} & set({HEAVY!r})
print("LOADED", status, *sorted(found), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    words = done.stderr.splitlines()[-1].split()
    assert words[0] == "LOADED"
    return int(words[1]), set(words[2:])


@pytest.mark.parametrize("command", [[], ["harden"], ["verify"], ["scan"], ["inspect"], ["bench"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    assert loaded_by(*command, "--help") == (0, set())


def test_version_imports_nothing_heavy(run) -> None:
    assert loaded_by("--version") == (0, set())
    rows = [line.split(" ", 1) for line in run("--version").stdout.splitlines()]
    assert rows[0] == ["mmbm-onnx", __version__]
    told = dict(rows)
    for name in ("onnx", "onnxruntime", "torch"):
        assert told[name] == importlib.metadata.version(name)


def test_version_says_what_is_not_installed(run, monkeypatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(()))
    lines = run("--version").stdout.splitlines()
    assert lines[2:] == [f"{name} not installed" for name in ("onnx", "onnxruntime", "torch")]


def test_verify_runs_without_torch(files) -> None:
    status, loaded = loaded_by(
        "verify",
        files / "original.onnx",
        files / "hardened.onnx",
        "--clean-dir",
        files / "clean.npz",
        "--detector",
        files / "detector.onnx",
        "--triggered",
        files / "triggered.npz",
    )
    assert status == 0
    assert "torch" not in loaded
    assert {"onnx", "onnxruntime"} <= loaded


def test_bench_runs_without_torch(files) -> None:
    status, loaded = loaded_by(
        "bench", files / "original.onnx", files / "hardened.onnx", "--seconds", "0.05"
    )
    assert status == 0
    assert "torch" not in loaded


def test_inspect_runs_without_torch_and_without_onnx_runtime(files) -> None:
    status, loaded = loaded_by("inspect", files / "original.onnx")
    assert status == 0
    assert not loaded & {"torch", "onnxruntime"}


def test_help_answers_at_once() -> None:
    # Half a second on an idle machine; the limit leaves room for a busy one. That nothing heavy
    # is imported is tested above.
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mmbm_onnx", "--help"], check=True,
                       capture_output=True)  # fmt: skip
        times.append(time.perf_counter() - start)
    assert min(times) < 2


@pytest.mark.parametrize("command", [[], ["harden"], ["verify"], ["inspect"], ["bench"]])
def test_exit_statuses_are_documented(run, command: list[str]) -> None:
    text = run(*command, "--help").stdout
    lines = [line.split(maxsplit=1) for line in text.split("Exit status:")[1].splitlines() if line]
    assert [status for status, _ in lines] == ["0", "1", "2", "3", "130"]


def test_harden_has_every_option(run) -> None:
    text = run("harden", "--help").stdout
    options = """
        --clean-dir --output --detector-output --no-detector --report --html --method --granularity
        --fold --cascade --shadow
        --false-positive-rate --max-accuracy-drop --min-accuracy --preprocess --mean --std --scale
        --resize --crop --resample --channel-order --layout --input --logits --device --provider
        --seed --epochs --batch-size --calibration-fraction --threads --format --force --quiet
        --verbose --debug --config --log-format
    """.split()  # noqa: SIM905
    assert [option for option in options if f"{option} " not in text] == []
    for name in METHODS:
        assert name in text


def test_the_methods_offered_are_those_there_are(run, files) -> None:
    result = run("harden", files, "--clean-dir", files / "clean.npz", "--method", "magic")
    assert result.exit_code == 2
    for name in METHODS:
        assert f"'{name}'" in result.stderr


def test_harden_says_its_defaults_and_what_sigkill_can_leave(run) -> None:
    text = " ".join(run("harden", "--help").stdout.split())
    assert "CPU threads. [default: as many as the libraries choose]" in text
    assert "below 2^63. [default: 0;" in text
    assert "Only SIGKILL or a power cut while finished files get their names" in text


def test_help_says_what_a_scan_needs_and_clean_samples_may_be(run) -> None:
    scan, harden = (" ".join(run(name, "--help").stdout.split()) for name in ("scan", "harden"))
    assert "It needs 5 classes or more" in scan and "drives half of them" in scan
    assert "Needs --html, and a model of 5 classes or more." in harden
    assert "of images alone, without labels, or an .npz with x and, better, y." in harden
