"""``verify`` and ``inspect`` on real files."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import onnx
import toy_models

from mmbm_onnx.report.schema import load_schema


def verify(run, files, *more: object):
    return run(
        *("verify", files / "original.onnx", files / "hardened.onnx"),
        *("--clean-dir", files / "clean.npz", *more),
    )


def test_json_is_one_object_that_validates(run, files) -> None:
    result = verify(
        *(run, files, "--format", "json", "--detector", files / "detector.onnx"),
        *("--triggered", files / "triggered.npz", "--max-attack-success-rate", "0.05"),
        *("--max-false-positive-rate", "0.01"),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    jsonschema.validate(told, load_schema("verify-report-1"))
    assert told["passed"] is True
    assert told["measurements"]["original"]["attack_success_rate"] == 1.0
    assert told["files"][0]["path"] == str(files / "original.onnx")


def test_a_gate_that_fails_is_in_the_json_and_in_the_status(run, files) -> None:
    onnx.save(toy_models.detector(threshold=1000.0).proto, files / "blind.onnx")
    result = verify(
        *(run, files, "--format", "json", "--detector", files / "blind.onnx"),
        *("--triggered", files / "triggered.npz", "--max-attack-success-rate", "0.05"),
    )
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [gate["name"] for gate in told["gates"] if not gate["passed"]] == [
        "detector_attack_success_rate"
    ]


def test_the_table_shows_attack_success_and_robust_accuracy(run, files) -> None:
    result = verify(run, files, "--triggered", files / "triggered.npz")
    assert result.exit_code == 0
    (header,) = [line for line in result.stdout.splitlines() if line.startswith("graph")]
    assert header.split() == ["graph", "accuracy", "agreement", "ASR", "RA", "DER"]
    assert "40 samples of other classes" in result.stdout


def test_quiet_leaves_the_status_alone(run, files) -> None:
    result = verify(run, files, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_the_report_is_what_json_prints_and_nothing_is_overwritten(run, files) -> None:
    report, page = files / "verdict.json", files / "page.html"
    result = verify(run, files, "--format", "json", "--report", report)
    assert result.exit_code == 0, result.output
    assert json.loads(report.read_text()) == json.loads(result.stdout)
    refused = verify(run, files, "--report", report, "--html", page)
    assert refused.exit_code == 2
    assert "exists already; use --force" in refused.stderr
    assert not page.exists()
    written = verify(run, files, "--report", report, "--html", page, "--force")
    assert f"report  {report}" in written.stdout
    assert page.exists()
    refused = verify(run, files, "--report", files / "clean.npz", "--force")
    assert "would overwrite an input" in refused.stderr


def test_a_page_is_written_and_nothing_overwritten(run, files) -> None:
    page = files / "page.html"
    more = ("--detector", files / "detector.onnx", "--triggered", files / "triggered.npz")
    result = verify(run, files, *more, "--html", page)
    assert result.exit_code == 0, result.output
    assert f"page  {page}" in result.stdout
    first = page.read_bytes()
    assert b"<h1>" in first
    refused = verify(run, files, *more, "--html", page)
    assert refused.exit_code == 2
    assert "exists already; use --force" in refused.stderr
    assert verify(run, files, *more, "--html", page, "--force", "-q").exit_code == 0
    assert page.read_bytes() == first
    for part in ("original.onnx", "hardened.onnx", "detector.onnx", "triggered.npz", "clean.npz"):
        refused = verify(run, files, *more, "--html", files / part, "--force")
        assert refused.exit_code == 2
        assert "would overwrite an input" in refused.stderr
    missing = verify(run, files, "--html", files / "nowhere" / "page.html")
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (2, 1)


def test_a_page_of_a_failed_gate_is_written_and_says_so(run, files) -> None:
    page = files / "page.html"
    more = ("--triggered", files / "triggered.npz", "--max-attack-success-rate", "0")
    onnx.save(toy_models.detector(threshold=1000.0).proto, files / "blind.onnx")
    more = (*more, "--detector", files / "blind.onnx")
    assert verify(run, files, *more, "--html", page).exit_code == 1
    text = page.read_text()
    assert "A gate failed: do not deploy as it is" in text
    assert "<b>detector attack success rate</b>" in text


def test_wrong_labels_stop_with_2(run, files) -> None:
    samples = toy_models.clean()
    wrong = np.random.default_rng(0).permutation(samples.y)
    np.savez(files / "clean.npz", x=samples.x, y=wrong)
    result = verify(run, files)
    assert result.exit_code == 2
    assert "implausible" in result.stderr


def test_limits_without_their_files_are_errors(run, files) -> None:
    assert verify(run, files, "--max-false-positive-rate", "0.1").exit_code == 2
    assert verify(run, files, "--max-attack-success-rate", "0.1").exit_code == 2


def test_inspect_lists_sites(run, files) -> None:
    result = run("inspect", files / "original.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 of 1 activations" in result.stdout
    assert "already hardened" in run("inspect", files / "hardened.onnx").stdout


def test_inspect_leaves_names_whole_off_a_terminal(run, files) -> None:
    proto = toy_models.original().proto
    long = "backbone/" * 20 + "act"
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [long if name == "act" else name for name in names]
    onnx.save(proto, files / "long.onnx")
    assert long in run("inspect", files / "long.onnx").stdout


def test_inspect_speaks_json(run, files) -> None:
    result = run("inspect", files / "original.onnx", "--format", "json")
    told = json.loads(result.stdout)
    jsonschema.validate(told, load_schema("inspection-1"))
    assert [site["tensor"] for site in told["sites"]] == ["act"]


def test_inspect_of_a_name_that_does_not_exist_is_an_error(run, files) -> None:
    result = run("inspect", files / "original.onnx", "--input", "image")
    assert result.exit_code == 2
    assert "no input named 'image'" in result.stderr
