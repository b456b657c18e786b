"""``harden``: what reaches the API, and what is done with its result.

The API is replaced here; that the real one works from this command line is tested end to end
with the API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from large import save_outside, treat_as_large
from toy_models import original_proto

import mmbm_onnx
from mmbm_onnx.types import Progress


@dataclass
class FakeResult:
    """As ``HardenResult``, for what the command line uses of it."""

    report: dict[str, Any]
    passed: bool = True
    warnings: tuple[str, ...] = ()
    saved: dict[str, Any] = field(default_factory=dict)

    def save(
        self,
        output: Path,
        *,
        detector_output: Path | None = None,
        report: Path | None = None,
        html: Path | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        self.saved.update(output=output, detector_output=detector_output, report=report,
                          html=html, force=force)  # fmt: skip
        for path in (output, detector_output, report, html):
            if path is not None:
                path.write_text("written")
        return {**self.report, "files": [{"role": "hardened", "path": str(output), "data": None}]}


REPORT = {
    "model": {"path": "original.onnx", "opset": 17, "classes": 3},
    "clean_set": {"samples": 60, "has_labels": True, "fit": 30, "calibration": 30},
    "method": {"name": "mmac", "granularity": "channel"},
    "execution": {"device": "cpu"},
    "seconds": {"learn": 1.0},
    "seed": 0,
    "sites": [{"folded": False}],
    "uncovered": [],
    "detector": None,
    "latency": [],
    "benchmark": {"graph": "detector", "attacks": [], "stopped": [], "missed": []},
    "figures": {"original": {"accuracy": 1.0, "agreement": None}, "hardened": None,
                "detector": None},
    "gates": [],
    "files": [],
}  # fmt: skip


class Api:
    """Records the call; what it returns is up to the test."""

    def __init__(self) -> None:
        self.result = FakeResult(REPORT)
        self.args: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def harden(self, *args: Any, **options: Any) -> FakeResult:
        self.args, self.options = args, options
        options["progress"](Progress("learn", 1, 2, {"loss": 0.5}))
        return self.result


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api()
    monkeypatch.setitem(mmbm_onnx.__dict__, "harden", api.harden)
    return api


def args(files: Path, *more: object) -> list[object]:
    return ["harden", files / "original.onnx", "--clean-dir", files / "clean.npz", *more]


def test_defaults_go_beside_the_model(run, files, api) -> None:
    (files / "hardened.onnx").unlink()
    result = run(*args(files))
    assert result.exit_code == 0, result.output
    assert api.args == (files / "original.onnx", files / "clean.npz")
    assert api.options.pop("progress") is not None
    assert api.options == {
        "method": "mmac-universal",
        "granularity": "channel",
        "fold": "auto",
        "cascade": "auto",
        "shadow": "auto",
        "detector": True,
        "false_positive_rate": 0.01,
        "max_accuracy_drop": 0.02,
        "min_accuracy": None,
        "preprocessing": None,
        "input_name": None,
        "logits_name": None,
        "device": "auto",
        "provider": None,
        "threads": None,
        "seed": 0,
        "epochs": None,
        "batch_size": None,
        "calibration_fraction": 0.5,
        "checkpoint": files / "original.hardened.onnx.checkpoint",
        "checkpoint_every": 60.0,
        "resume": False,
        "restart": False,
    }
    assert api.result.saved == {
        "output": files / "original.hardened.onnx",
        "detector_output": files / "original.detector.onnx",
        "report": files / "original.report.json",
        "html": None,
        "force": False,
    }


def test_every_option_reaches_the_api(run, files, api) -> None:
    result = run(
        *args(files, "--method", "mmbm", "--granularity", "tensor", "--no-detector"),
        *("--false-positive-rate", "0.05", "--max-accuracy-drop", "0", "--min-accuracy", "0.9"),
        *("--input", "x", "--logits", "y", "--device", "cpu", "--provider", "cuda"),
        *("--threads", "2", "--seed", "7", "--epochs", "3", "--batch-size", "9"),
        *(
            "--calibration-fraction",
            "0.25",
            "--fold",
            "never",
            "--cascade",
            "never",
            "--shadow",
            "auto",
            "-o",
            files / "a",
            "--report",
            files / "b",
        ),
        *("--checkpoint-every", "5", "--resume"),
    )
    assert result.exit_code == 0, result.output
    api.options.pop("progress")
    assert api.options == {
        "method": "mmbm",
        "granularity": "tensor",
        "fold": "never",
        "cascade": "never",
        "shadow": "auto",
        "detector": False,
        "false_positive_rate": 0.05,
        "max_accuracy_drop": 0.0,
        "min_accuracy": 0.9,
        "preprocessing": None,
        "input_name": "x",
        "logits_name": "y",
        "device": "cpu",
        "provider": "cuda",
        "threads": 2,
        "seed": 7,
        "epochs": 3,
        "batch_size": 9,
        "calibration_fraction": 0.25,
        "checkpoint": files / "a.checkpoint",
        "checkpoint_every": 5.0,
        "resume": True,
        "restart": False,
    }
    assert api.result.saved["output"] == files / "a"
    assert api.result.saved["report"] == files / "b"
    assert api.result.saved["detector_output"] is None


def test_a_page_goes_where_it_is_asked_for(run, files, api) -> None:
    result = run(*args(files, "--html", files / "page.html"))
    assert result.exit_code == 0, result.output
    assert api.result.saved["html"] == files / "page.html"
    assert f"page      {files / 'page.html'}" in result.stdout


def test_a_page_overwrites_nothing_without_force_and_no_input_with_it(run, files, api) -> None:
    page = files / "page.html"
    page.write_text("mine")
    refused = run(*args(files, "--html", page))
    assert (refused.exit_code, api.args) == (2, ())
    assert "exists already; use --force" in refused.stderr
    refused = run(*args(files, "--force", "--html", files / "original.onnx"))
    assert (refused.exit_code, api.args) == (2, ())
    assert "would overwrite an input" in refused.stderr
    refused = run(*args(files, "--html", files / "same", "-o", files / "same"))
    assert refused.exit_code == 2
    assert page.read_text() == "mine"


def test_a_directory_gives_its_name_to_files_beside_it(run, files, api) -> None:
    folder = files / "net.v2"
    folder.mkdir()
    (files / "original.onnx").rename(folder / "model.onnx")
    assert run("harden", folder, "--clean-dir", files / "clean.npz").exit_code == 0
    assert api.result.saved["output"] == files / "net.v2.hardened.onnx"


def test_a_failed_gate_exits_with_1_and_still_writes(run, files, api) -> None:
    api.result.passed = False
    result = run(*args(files, "--force"))
    assert result.exit_code == 1
    assert (files / "original.hardened.onnx").exists()
    assert (files / "original.report.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "original.onnx"], "would overwrite an input"),
        (["--report", "clean.npz"], "would overwrite an input"),
        (["-o", "same.onnx", "--detector-output", "same.onnx"], "written to the same file"),
        (["-o", "hardened.onnx"], "exists already; use --force"),
        (["-o", "nowhere/h.onnx"], "does not exist"),
    ],
)
def test_outputs_are_refused_before_any_work(run, files, api, monkeypatch, more, message) -> None:
    monkeypatch.chdir(files)
    result = run(*args(files, *more))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert api.args == ()


def test_a_file_in_the_model_directory_is_an_input(run, files, api) -> None:
    folder = files / "net"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"w")
    result = run(
        *("harden", folder, "--clean-dir", files / "clean.npz", "--force"),
        *("-o", folder / "weights.bin"),
    )
    assert (result.exit_code, api.args) == (2, ())
    assert "would overwrite an input" in result.stderr


def test_samples_are_inputs_and_other_files_beside_them_are_not(run, files, api) -> None:
    folder = files / "set"
    folder.mkdir()
    (files / "clean.npz").rename(folder / "clean.npz")
    (folder / "old.hardened.onnx").touch()
    common = ("harden", files / "original.onnx", "--clean-dir", folder, "--force", "-o")
    result = run(*common, folder / "clean.npz")
    assert (result.exit_code, api.args) == (2, ())
    assert "would overwrite an input" in result.stderr
    assert run(*common, folder / "old.hardened.onnx").exit_code == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--detector-output", "d.onnx"),
        ("--cascade", "always"),
        ("--shadow", "int8"),
        ("--shadow", "half"),
    ],
)
def test_no_detector_contradicts_what_is_of_one(run, files, api, option, value) -> None:
    result = run(*args(files, "--no-detector", option, value))
    assert result.exit_code == 2
    told = option if value == "d.onnx" else f"{option} {value}"
    assert f"--no-detector and {told} exclude each other" in result.stderr


def test_results_go_to_stdout_and_warnings_to_stderr(run, files, api) -> None:
    api.result.warnings = ("few samples",)
    result = run(*args(files))
    assert result.stderr == "mmbm-onnx: warning: few samples\n"
    assert result.stdout.startswith("model ")
    assert "1 of 1 activations" in result.stdout
    assert f"hardened  {files / 'original.hardened.onnx'}" in result.stdout
    assert f"report    {files / 'original.report.json'}" in result.stdout


def test_quiet_means_silent(run, files, api) -> None:
    api.result.warnings = ("few samples",)
    result = run(*args(files, "-q"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_json_is_the_report_alone(run, files, api) -> None:
    result = run(*args(files, "--format", "json"))
    told = json.loads(result.stdout)
    assert told["files"][0]["path"] == str(files / "original.hardened.onnx")
    assert {**told, "files": []} == REPORT
    assert run(*args(files, "--format", "json", "-q", "--force")).stdout == result.stdout


def test_preprocessing_flags_build_a_preprocessing(run, files, api) -> None:
    result = run(
        *args(files, "--scale", "1/128", "--mean", "0.5,0.4,0.3", "--std", "0.2"),
        *("--resize", "256", "--crop", "224", "--resample", "bicubic"),
        *("--channel-order", "bgr", "--layout", "nhwc"),
    )
    assert result.exit_code == 0, result.output
    made = api.options["preprocessing"]
    assert made.scale == 1 / 128
    assert (made.mean, made.std) == ((0.5, 0.4, 0.3), (0.2,))
    assert (made.resize, made.crop) == (256, (224, 224))
    assert (made.resample, made.channel_order, made.layout) == ("bicubic", "bgr", "nhwc")


def test_flags_take_the_place_of_the_fields_of_a_file(run, files, api) -> None:
    file = files / "preprocess.json"
    file.write_text(json.dumps({"mean": [0.5], "std": [0.25]}))
    result = run(*args(files, "--preprocess", file, "--std", "0.125", "--resize", "32x48"))
    assert result.exit_code == 0, result.output
    made = api.options["preprocessing"]
    assert (made.mean, made.std, made.resize) == ((0.5,), (0.125,), (32, 48))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--scale", "1/0"),
        ("--scale", "x"),
        ("--mean", "0.5;0.4"),
        ("--std", "nan"),
        ("--resize", "0"),
        ("--resize", "1x2x3"),
        ("--crop", "-4"),
        ("--epochs", "0"),
        ("--seed", "-1"),
    ],
)
def test_values_that_make_no_sense_are_wrong_usage(run, files, api, option, value) -> None:
    result = run(*args(files, f"{option}={value}"))
    assert result.exit_code == 2
    assert option in result.stderr
    assert api.args == ()


@pytest.fixture
def large(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory, with a model whose weights stay in their files."""
    treat_as_large(monkeypatch)
    save_outside(original_proto(), files / "original.onnx")
    return files


def test_weights_in_the_way_of_a_large_model_are_told_before_any_work(run, large, api) -> None:
    (large / "original.detector.onnx.data").write_text("mine")
    result = run(*args(large))
    assert result.exit_code == 2
    assert "original.detector.onnx.data: exists already; use --force" in result.stderr
    assert not api.args
    assert run(*args(large, "--no-detector")).exit_code == 0


@pytest.mark.parametrize("folder", [".", "sub/..", "link"])
def test_weights_and_other_outputs_have_names_of_their_own(run, large, api, folder) -> None:
    (large / "sub").mkdir()
    (large / "link").symlink_to(large)
    result = run(*args(large, "--report", large / folder / "original.hardened.onnx.data"))
    assert result.exit_code == 2
    assert "two outputs would be written to the same file" in result.stderr
    assert not api.args


def test_the_weights_of_the_model_itself_are_never_overwritten(run, large, api) -> None:
    save_outside(original_proto(), large / "original.onnx", "new.onnx.data")
    result = run(*args(large, "-o", large / "new.onnx", "--force"))
    assert result.exit_code == 2
    assert "new.onnx.data: the output would overwrite an input" in result.stderr
    assert not api.args


def test_what_is_called_so_beside_a_small_model_is_in_nobodys_way(run, files, api) -> None:
    (files / "original.hardened.onnx.data").write_text("mine")
    assert run(*args(files)).exit_code == 0
    assert (files / "original.hardened.onnx.data").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [("n" * 247 + ".onnx", "File name too long"), ("c:h.onnx", "weights cannot lie beside")],
)
def test_names_that_weights_cannot_have_are_told_before_any_work(
    run, large, api, name, message
) -> None:
    result = run(*args(large, "-o", large / name))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not api.args
