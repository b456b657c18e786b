"""``mmbm-onnx scan``, as its users run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import mmbm
from rows import TARGET, rows_model, rows_samples

FAST = ("--threads", "1", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, backdoor in (("bad", True), ("good", False)):
        onnx.save(rows_model(backdoor=backdoor), tmp_path / f"{name}.onnx")
    x, y = rows_samples(200, seed=1)
    np.savez(tmp_path / "clean.npz", x=x, y=y)
    return tmp_path


def scan(folder: Path, model: str, *args: object):
    return mmbm("scan", folder / model, "--clean-dir", folder / "clean.npz", *FAST, *args)


def test_a_backdoor_is_told_first_and_by_the_exit_status(folder: Path) -> None:
    done = scan(folder, "bad.onnx")
    assert done.status == 1 and done.stderr == ""
    assert done.stdout.startswith("SUSPICIOUS a pattern ")
    assert f"to class {TARGET} " in done.stdout.splitlines()[0]
    assert "\nbest not deploy this model; where it must be, deploy the detector" in done.stdout
    assert list(folder.iterdir()) and not list(folder.glob("*.json"))


def test_nothing_found_is_status_0_and_promises_nothing(folder: Path) -> None:
    done = scan(folder, "good.onnx")
    assert done.status == 0
    assert done.stdout.startswith("nothing found")
    assert "does not show that there is no backdoor" in done.stdout


def test_no_verdict_is_no_good_news(folder: Path) -> None:
    proto = rows_model(backdoor=True)
    # Gradients are 0 nearly everywhere behind this.
    hidden = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 10, 10] image) => (float[N] y)
        { half = Constant <value_float = 0.45> () steep = Constant <value_float = 1e4> ()
          c = Sub (image, half) s = Mul (c, steep) seen = Sigmoid (s) y = Identity (seen) }"""
    )
    nodes = [*hidden.graph.node[:-1], *proto.graph.node]
    nodes[len(hidden.graph.node) - 1].input[0] = "seen"
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, folder / "hidden.onnx")
    sarif = folder / "found.sarif"
    done = scan(folder, "hidden.onnx", "--steps", "20", "--sarif", sarif)
    assert (done.status, done.stdout.split(":")[0]) == (1, "NOT JUDGED no verdict")
    (run,) = json.loads(sarif.read_text())["runs"]
    (invocation,) = run["invocations"]
    assert run["results"] == [] and invocation["executionSuccessful"] is False
    (told,) = invocation["toolExecutionNotifications"]
    assert told["level"] == "error" and "no verdict" in told["message"]["text"]
    page = folder / "page.html"
    args = ("harden", folder / "hidden.onnx", "--clean-dir", folder / "clean.npz", "--epochs", "2")
    done = mmbm(*args, *FAST, "--max-accuracy-drop", "1", "--html", page, "--scan")
    assert "no verdict" in done.stderr
    assert "came to no verdict" in page.read_text("utf-8")


def test_a_class_that_all_samples_are_decided_as_is_left_out(folder: Path) -> None:
    x, y = rows_samples(400, seed=1)
    np.savez(folder / "one.npz", x=x[y == 2])
    done = mmbm("scan", folder / "bad.onnx", "--clean-dir", folder / "one.npz", *FAST)
    assert done.status in (0, 1), done.error
    row = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["2"])
    assert row.split()[1:3] == ["-", "-"]


def test_json_and_sarif_are_printed_and_written(folder: Path) -> None:
    report, sarif, patterns = (folder / name for name in ("r.json", "s.sarif", "p.npz"))
    outputs = ("--report", report, "--sarif", sarif, "--patterns", patterns)
    done = scan(folder, "bad.onnx", "--format", "json", *outputs)
    assert done.status == 1
    assert json.loads(done.stdout) == json.loads(report.read_text())
    assert json.loads(done.stdout)["model"]["path"] == str(folder / "bad.onnx")
    (result,) = json.loads(sarif.read_text())["runs"][0]["results"]
    where = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert where == (folder / "bad.onnx").as_uri()
    printed = scan(folder, "bad.onnx", "--format", "sarif", "--steps", "60")
    assert json.loads(printed.stdout) == json.loads(sarif.read_text())
    again = scan(folder, "bad.onnx", "--report", report)
    assert again.status == 2 and "exists" in again.error
    assert scan(folder, "good.onnx", "--report", report, "--force", "-q").status == 0
    assert json.loads(report.read_text())["suspicious"] is False


def test_without_clean_samples(folder: Path) -> None:
    done = mmbm("scan", folder / "bad.onnx", *FAST)
    assert done.status == 1
    assert "MM-BD: p = " in done.stdout.splitlines()[0]
    refused = mmbm("scan", folder / "bad.onnx", "--patterns", folder / "p.npz", *FAST)
    assert refused.status == 2 and "--patterns needs --clean-dir" in refused.error
    refused = mmbm("scan", folder / "bad.onnx", "--scale", "1", *FAST)
    assert refused.status == 2 and "options of preprocessing need --clean-dir" in refused.error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--range", "1,0"), "the smaller number first"),
        (("--range", "x"), "'x' is not a list"),
        (("--steps", "19"), "19 is not in the range"),
        (("--range", "0.5,2"), "are not within the range 0.5 to 2"),
        (("--report", "clean.npz"), "clean.npz"),
        (("--report", "clean.npz", "--force"), "clean.npz"),
        (("--sarif", "bad.onnx", "--force"), "bad.onnx"),
        (("--report", "missing/r.json"), "missing"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(
    folder: Path, args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    done = scan(folder, "bad.onnx", *args)
    assert done.status == 2 and message in done.error
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_quiet_says_nothing_but_by_the_exit_status(folder: Path) -> None:
    done = scan(folder, "bad.onnx", "-q")
    assert (done.status, done.stdout, done.stderr) == (1, "", "")


def test_harden_shows_what_a_scan_recovers_on_its_page(folder: Path) -> None:
    page = folder / "page.html"
    args = ("harden", folder / "bad.onnx", "--clean-dir", folder / "clean.npz", "--epochs", "2")
    refused = mmbm(*args, *FAST, "--scan")
    assert refused.status == 2 and "--scan needs --html" in refused.error
    done = mmbm(*args, *FAST, "--max-accuracy-drop", "1", "--html", page, "--scan")
    assert "suspicious: a pattern drives samples to class 3 " in done.stderr
    text = page.read_text("utf-8")
    section = text.split('<section id="triggers">')[1].split("</section>")[0]
    assert f"The scan finds class {TARGET} <b>suspect</b>" in section
    assert f"suspicious: class {TARGET} looks like the target of a backdoor" in text
    assert section.count("data:image/png") >= 3
    assert "no scan" not in section.lower()
