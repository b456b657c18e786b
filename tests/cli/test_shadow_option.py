"""``--shadow`` of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from command_line import QUICK, contents, mmbm


def test_what_cannot_be_done_is_one_line_and_status_2(inputs: Path) -> None:
    old = onnx.load(inputs / "model.onnx")
    old.opset_import[0].version = 12
    onnx.save(old, inputs / "model.onnx")
    before = contents(inputs)
    args = ("model.onnx", "--clean-dir", "clean.npz", *QUICK)
    done = mmbm("harden", *args, "--shadow", "int8", cwd=inputs)
    assert done.status == 2
    told = "no int8 branch: int8 takes opset 13, the model has 12; use --shadow auto"
    assert done.error.strip().splitlines()[-1].endswith(told)
    assert contents(inputs) == before
    done = mmbm("harden", *args, "--shadow", "auto", cwd=inputs)
    assert done.status == 0
    assert "branch " not in done.stdout  # folded, as usual
    assert json.loads((inputs / "model.report.json").read_text())["detector"]["shadow"] == "folded"
    assert "opset 13" not in done.stderr


def test_int8_is_made_inspected_and_verified(inputs: Path) -> None:
    args = ("model.onnx", "--clean-dir", "clean.npz", *QUICK)
    done = mmbm("harden", *args, "--shadow", "int8", cwd=inputs)
    assert done.status == 0
    assert done.stderr == ""  # nor what ONNX Runtime's quantizer remarks
    assert "branch     int8\n" in done.stdout
    report = json.loads((inputs / "model.report.json").read_text())
    assert report["detector"]["shadow"] == "int8"
    assert '"shadow": "int8"' in mmbm("inspect", "model.detector.onnx", "--format", "json",
                                      cwd=inputs).stdout  # fmt: skip
    done = mmbm("verify", "model.onnx", "model.hardened.onnx", "--clean-dir", "clean.npz",
                "--detector", "model.detector.onnx", cwd=inputs)  # fmt: skip
    assert done.status == 0, done.stdout
    assert "PASS  detector_bounds" in done.stdout
