"""``mmbm-onnx bench``: what it prints, what it refuses, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from mmbm_onnx.report.schema import load_schema

QUICK = ("--seconds", "0.05", "--threads", "1", "--no-memory")


def test_it_prints_a_table(run, files: Path) -> None:
    graphs = [files / name for name in ("original.onnx", "hardened.onnx", "detector.onnx")]
    result = run("bench", *graphs, "--seconds", "0.05", "--threads", "1,2", "--batch", "1,4")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines if " x " in line and " to " in line]
    assert [(row[1], row[2]) for row in rows[::3]] == [
        ("1", "1"),
        ("4", "1"),
        ("1", "2"),
        ("4", "2"),
    ]
    assert len(rows) == 12
    assert sum("MiB" in line for line in lines) == 3
    assert "1.00 x" in result.stdout


def test_it_prints_json(run, files: Path) -> None:
    result = run(
        "bench", files / "original.onnx", files / "hardened.onnx", *QUICK, "--format", "json",
        "--samples", files / "clean.npz",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    jsonschema.validate(told, load_schema("bench-report-1"))
    assert {timing["batch_size"] for timing in told["timings"]} == {1, 8}
    assert [Path(file["path"]).name for file in told["files"]] == ["original.onnx", "hardened.onnx"]
    assert told["providers"] == ["CPUExecutionProvider"]


def test_a_limit_that_is_exceeded_exits_1_and_says_so(run, files: Path) -> None:
    result = run(
        "bench", files / "original.onnx", files / "detector.onnx", *QUICK, "--max-ratio", "1.01"
    )
    assert result.exit_code == 1
    assert "FAIL: the worst ratio is" in result.stdout
    result = run(
        "bench", files / "original.onnx", files / "detector.onnx", *QUICK, "--max-ratio", "1e9"
    )
    assert result.exit_code == 0
    assert "PASS: the worst ratio is" in result.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "Missing argument 'OTHER...'"),
        (["clean.npz"], "clean.npz"),
        (["missing.onnx"], "missing.onnx"),
        (["original.onnx"], "named twice"),
        (["hardened.onnx", "--batch", "0"], "whole numbers"),
        (["hardened.onnx", "--batch", "1,x"], "whole numbers"),
        (["hardened.onnx", "--threads", ""], "whole numbers"),
        (["hardened.onnx", "--threads", "100000"], "threads is 100000"),
        (["hardened.onnx", "--seconds", "0"], "x>0"),
        (["hardened.onnx", "--max-ratio", "-1"], "x>0"),
        (["hardened.onnx", "--provider", "magic"], "magic"),
        (["hardened.onnx", "--samples", "missing.npz"], "missing.npz"),
        (["hardened.onnx", "--input", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    run, files: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], told: str
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    result = run("bench", "original.onnx", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert sorted(files.iterdir()) == before


def test_it_tells_how_far_it_is(run, files: Path) -> None:
    graphs = [files / "original.onnx", files / "hardened.onnx"]
    args = ("--seconds", "0.05", "--threads", "1,2", "--batch", "1,4", "--log-format", "json")
    events = [json.loads(line) for line in run("bench", *graphs, *args).stderr.splitlines()]
    told = [(event["stage"], event["step"], event["total"]) for event in events]
    assert told[0] == ("time", 0, 2)  # what each part has is not known yet
    assert ("time", 4, 4) in told
    assert told[-1] == ("memory", 2, 2)
