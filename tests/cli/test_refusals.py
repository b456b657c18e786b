"""Options that ``harden`` refuses: exit status 2, one line, nothing written.

Torch cannot be imported in these runs (where it is not asked for by name), so that nobody waits
seconds to hear of a wrong path.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import contents, environment, mmbm

CLEAN = ("--clean-dir", "clean.npz")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--input", "picture"), "no input named 'picture'"),
        (("--logits", "logit"), "no tensor named 'logit' in the graph; did you"),
        (("--mean", "0.9"), "wrong preprocessing (scale, mean, std)"),
        (("--provider", "magic"), "unknown execution provider 'magic'"),
        (("--mean", "1,2,3"), "mean has 3 values, the model takes 1 channel;"),
    ],
)
def test_options_that_do_not_fit_the_model_or_the_samples_are_told(
    inputs: Path, without_torch: dict[str, str], args: tuple[str, ...], message: str
) -> None:
    before = contents(inputs)
    done = mmbm("harden", "model.onnx", *CLEAN, *args, cwd=inputs, env=without_torch)
    assert done.status == 2
    assert message in done.error
    assert contents(inputs) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--epochs", "0"), "'--epochs': 0 is not in the range x>=1."),
        (("--false-positive-rate", "1.5"), "'1.5' is not a fraction from 0 to 1"),
        (("--false-positive-rate", "0"), "false_positive_rate is 0.0, expected a fraction"),
        (("--calibration-fraction", "1"), "calibration_fraction is 1.0, expected a fraction"),
        (("--seed", "x"), "'x' is not a valid integer"),
        (("--seed", str(2**63)), "9223372036854775808 is not in the range 0<=x<=92233720368547758"),
        (("-o", "model.onnx"), "model.onnx: the output would overwrite an input"),
        (("--report", "clean.npz", "--force"), "clean.npz: the output would overwrite an input"),
        (("-o", "there.onnx"), "there.onnx: exists already; use --force to overwrite it"),
        (("-o", "nowhere/h.onnx"), "nowhere/h.onnx: the directory nowhere does not exist"),
        (("-o", "."), ".: is a directory, not a file"),
        (("-o", "same", "--report", "same"), "same: two outputs would be written to the same"),
    ],
)
def test_bad_options_are_told_before_any_work(
    inputs: Path, without_torch: dict[str, str], args: tuple[str, ...], message: str
) -> None:
    (inputs / "there.onnx").write_bytes(b"mine")
    # Work would begin with reading the model, and end there with another message.
    (inputs / "model.onnx").write_bytes(b"no model")
    before = contents(inputs)
    done = mmbm("harden", "model.onnx", *CLEAN, *args, cwd=inputs, env=without_torch)
    assert done.status == 2
    assert message in done.error
    assert contents(inputs) == before


def test_devices_that_are_not_there_are_told(inputs: Path) -> None:
    before = contents(inputs)
    args = ("--device", "cuda", "--epochs", "1")
    done = mmbm("harden", "model.onnx", *CLEAN, *args, cwd=inputs)
    if done.status != 2 and pytest.importorskip("torch").cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    assert done.status == 2
    assert "device 'cuda' was asked for and torch finds 0 CUDA devices" in done.error
    assert contents(inputs) == before


def test_providers_that_are_not_there_are_told(inputs: Path, without_torch: dict[str, str]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs an ONNX Runtime without CUDA")
    before = contents(inputs)
    args = ("harden", "model.onnx", *CLEAN, "--provider", "cuda")
    done = mmbm(*args, cwd=inputs, env=without_torch)
    assert done.status == 2
    assert "CUDAExecutionProvider is not in this ONNX Runtime" in done.error
    assert contents(inputs) == before


def _give_up_roots_privilege() -> None:
    """Root may write anywhere; after the next exec no more (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)."""
    if ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) != 0:
        raise OSError("prctl")


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_a_directory_that_cannot_be_written_is_told_before_any_work(
    inputs: Path, without_torch: dict[str, str]
) -> None:
    drop = None
    if os.geteuid() == 0:
        if not sys.platform.startswith("linux"):
            pytest.skip("root may write anywhere")
        drop = _give_up_roots_privilege
    folder = inputs / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    probe = [sys.executable, "-c", f"open({str(folder / 'probe')!r}, 'w')"]
    try:
        if subprocess.run(probe, preexec_fn=drop, capture_output=True).returncode == 0:
            pytest.skip("this user may write anywhere")
    except subprocess.SubprocessError:
        pytest.skip("root's privilege cannot be given up here")
    args = ("harden", "model.onnx", *CLEAN, "-o", "locked/h.onnx")
    done = mmbm(*args, cwd=inputs, env=without_torch, preexec_fn=drop)
    assert done.status == 2
    assert "locked/h.onnx: the directory locked is not writable" in done.error
    assert sorted(contents(inputs)) == ["clean.npz", "model.onnx"]


def test_existing_outputs_are_refused_without_loading_anything(inputs: Path) -> None:
    (inputs / "model.report.json").write_text("mine")
    program = (
        "import sys\nfrom mmbm_onnx.__main__ import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(*{'numpy', 'onnx', 'onnxruntime', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "harden", "model.onnx", *CLEAN],
        capture_output=True,
        text=True,
        cwd=inputs,
        env=environment(),
    )
    assert done.stdout == "2\n\n"
    assert "model.report.json: exists already" in done.stderr
