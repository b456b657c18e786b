"""``--config``: options from a file, which the command line wins over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from mmbm_onnx_cli.main import main

import mmbm_onnx


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Paths that exist: nothing here looks into them."""
    for name in ("original.onnx", "hardened.onnx", "detector.onnx", "clean.npz"):
        (tmp_path / name).touch()
    return tmp_path


class Called(Exception):  # noqa: N818
    """Ends a command where its work would begin."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the API is called with, whichever command calls it."""
    found: dict[str, Any] = {}

    def api(*args: Any, **options: Any) -> None:
        found.update(options, args=args)
        raise Called

    for name in ("harden", "verify", "scan", "inspect", "bench"):
        monkeypatch.setitem(mmbm_onnx.__dict__, name, api)
    return found


def config(folder: Path, text: str) -> Path:
    path = folder / "mmbm.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_all_that_the_command_line_can(run, files, taken) -> None:
    path = config(
        files,
        """
        # for every command that has it
        mean = [0.5]
        std = 0.25
        scale = "1/255"
        seed = 7

        [harden]
        model = "original.onnx"
        clean-dir = "clean.npz"
        output = "out/h.onnx"
        no_detector = true
        false_positive_rate = 0.005
        epochs = 3
        resize = 8
        crop = "4x5"
        method = "mmbm"
        force = true

        [verify]
        original = "original.onnx"
        """,
    )
    (files / "out").mkdir()
    run("harden", "--config", path)
    assert taken["args"] == (files / "original.onnx", files / "clean.npz")
    assert not taken["detector"]
    assert (taken["seed"], taken["epochs"], taken["method"]) == (7, 3, "mmbm")
    assert (taken["false_positive_rate"], taken["restart"]) == (0.005, True)
    assert taken["checkpoint"] == files / "out" / "h.onnx.checkpoint"
    images = taken["preprocessing"]
    assert (images.mean, images.std, images.scale) == ((0.5,), (0.25,), 1 / 255)
    assert (images.resize, images.crop) == (8, (4, 5))


def test_the_command_line_wins(run, files, taken) -> None:
    path = config(files, '[harden]\nclean-dir = "missing"\nepochs = 3\nmethod = "mmbm"\n')
    args = ("harden", files / "original.onnx", "--config", path, "--epochs", 9)
    run(*args, "--clean-dir", files / "clean.npz", "--force")
    assert (taken["epochs"], taken["method"]) == (9, "mmbm")
    assert taken["args"][1] == files / "clean.npz"


def test_arguments_of_any_number_and_lists(run, files, taken) -> None:
    text = '[bench]\noriginal = "original.onnx"\nothers = ["hardened.onnx", "detector.onnx"]\n'
    path = config(files, text + "batch = [1, 4]\nthreads = 2\nno-memory = true\n")
    run("bench", "--config", path)
    assert taken["args"] == tuple(files / f"{n}.onnx" for n in ("original", "hardened", "detector"))
    assert (taken["batch_sizes"], taken["threads"], taken["memory"]) == ((1, 4), (2,), False)


def test_nothing_is_read_that_was_not_asked_for(run, files, taken, monkeypatch) -> None:
    config(files, "[harden]\nepochs = 3\n")
    monkeypatch.chdir(files)
    run("harden", "original.onnx", "--clean-dir", "clean.npz", "--force")
    assert taken["epochs"] is None


def test_how_much_is_told_can_be_said_there(run, files) -> None:
    path = config(files, 'log-format = "json"\nquiet = true\nverbose = 1\n')
    result = run("inspect", files / "clean.npz", "--config", path)
    assert result.exit_code == 2
    assert result.stderr.startswith('{"time": ')


def test_a_scan_without_samples_passes_over_what_is_for_all_commands(run, files, taken) -> None:
    (files / "pre.json").write_text("{}")
    path = config(files, 'scale = "1/255"\npreprocess = "pre.json"\nseed = 3\n[scan]\nsteps = 30\n')
    run("scan", files / "original.onnx", "--config", path)
    assert (taken["preprocessing"], taken["seed"], taken["steps"]) == (None, 3, 30)
    run("scan", files / "original.onnx", "--config", path, "--clean-dir", files / "clean.npz")
    assert taken["preprocessing"].scale == 1 / 255


@pytest.mark.parametrize(
    "text", ["mean = 0\n[scan]\nscale = 1\n", "scale = 2\n[scan]\nscale = 1\n"]
)
def test_a_scan_without_samples_refuses_what_is_meant_for_it(run, files, taken, text) -> None:
    path = config(files, text)
    result = run("scan", files / "original.onnx", "--config", path)
    assert result.exit_code == 2
    assert f"error: {path}, line 3: scale: options of preprocessing need" in result.stderr
    result = run("scan", files / "original.onnx", "--config", config(files, "std = 1"), "--std", 2)
    assert result.exit_code == 2
    assert "error: --std: options of preprocessing need --clean-dir" in result.stderr
    assert not taken


def test_sizes_may_be_lists(run, files, taken) -> None:
    path = config(files, "[harden]\nresize = [16, 24]\ncrop = [4, 5]\n")
    run("harden", files / "original.onnx", "--clean-dir", files / "clean.npz", "--config", path)
    assert (taken["preprocessing"].resize, taken["preprocessing"].crop) == ((16, 24), (4, 5))


def test_errors_of_a_file_are_told_the_way_it_asks_for(run, files) -> None:
    for text in ('log-format = "json"\nsede = 1\n', '[inspect]\nlog_format = "json"\nseed = 1\n'):
        args = ("inspect", files / "original.onnx", "--config", config(files, text))
        assert run(*args).stderr.startswith('{"time": ')
        assert run(*args, "--log-format", "text").stderr.startswith("mmbm-onnx: error: ")
        assert run("--help").exit_code == 0
    path = config(files, '[harden]\nlog-format = "json"\n[scan]\nsede = 1\n')
    result = run("inspect", files / "original.onnx", "--config", path)
    assert result.stderr.startswith("mmbm-onnx: error: ")


def test_an_empty_path_is_refused_on_the_command_line_too(run, files) -> None:
    args = ("harden", files / "original.onnx", "--clean-dir", files / "clean.npz")
    result = run(*args, "--html", "")
    assert result.exit_code == 2
    assert "'--html': is empty, expected a path" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[harden]\nepoch = 3\n",
            ", line 2: [harden] has no option 'epoch'; did you mean 'epochs'",
        ),
        ("[harden]\n\nclean_dr = 'x'\n", ", line 3: [harden] has no option 'clean_dr'; did you"),
        ("[harden]\nclean = 'x'\n", "'clean'; did you mean 'clean-dir'?"),
        ("[verify]\nfold = 'auto'\n", ", line 2: [verify] has no option 'fold'; harden has it"),
        ("[hardn]\n", ", line 1: no command is called 'hardn'; did you mean 'harden'?"),
        ("[completion]\n", "no command is called 'completion'"),
        ("sede = 3\n", ", line 1: there is no option 'sede'; did you mean 'seed'?"),
        ("config = 'a'\n", ", line 1: there is no option 'config'"),
        ("[harden]\nhelp = true\n", "[harden] has no option 'help'"),
        ("[harden]\nepochs = '3'\n", ", line 2: epochs is '3', expected a whole number"),
        ("[harden]\nepochs = true\n", ", line 2: epochs is true, expected a whole number"),
        ("[harden]\nepochs = 1.5\n", "epochs is 1.5, expected a whole number"),
        ("[harden]\nepochs = 0\n", ", line 2: epochs: 0 is not in the range x>=1."),
        ("[harden]\nforce = 1\n", ", line 2: force is 1, expected true or false"),
        ("[harden]\nverbose = true\n", "verbose is true, expected a whole number"),
        ("[harden]\noutput = 3\n", ", line 2: output is 3, expected a path in quotes"),
        ("[harden]\nhtml = ''\n", ", line 2: html is empty, expected a path"),
        ("[bench]\nothers = ['']\n[harden]\nclean-dir = ''\n", ", line 4: clean-dir is empty"),
        ("[harden]\nresize = [1, 2, 3]\n", ", line 2: resize: '1x2x3' is not a size"),
        ("[harden]\nresize = [1.5, 2]\n", ", line 2: resize is 1.5, expected a number, text in"),
        ("[harden]\nscale = [1, 255]\n", ", line 2: scale is [1, 255], expected a number or text"),
        ("[harden]\nmethod = 1\n", ", line 2: method is 1, expected text in quotes"),
        ("[harden]\nmethod = 'magic'\n", ", line 2: method: 'magic' is not one of"),
        ("[harden]\ninput = 1\n", "input is 1, expected text in quotes"),
        ("[harden]\nmax-accuracy-drop = '0'\n", "max-accuracy-drop is '0', expected a number"),
        ("[harden]\nmax-accuracy-drop = 2\n", ", line 2: max-accuracy-drop: '2' is not a fraction"),
        ("[harden]\nmean = ['a']\n", ", line 2: mean: 'a' is not a list such as"),
        ("[harden]\nmean = {a = 1}\n", "mean is {'a': 1}, expected a number, text in quotes or"),
        ("[harden]\nseed = 2026-01-01\n", "seed is 2026-01-01, expected a whole number"),
        ("[harden]\ncheckpoint_every = 'x'\n", "checkpoint_every is 'x', expected a number"),
        ("[harden]\nno-detector = true\nno_detector = true\n", "'no_detector' is given twice"),
        ("[harden\n", "is not valid TOML: "),
        ("a = 1\na = 2\n", "is not valid TOML: "),
        ("harden = 3\n", ", line 1: there is no option 'harden'"),
        ("[harden]\ntext = '''\nepoch = 1\n'''\nepoch = 2\n", "mmbm.toml, line 2: [harden] has no"),
        ("[harden]\nepoch = 1 # '''\n[verify]\n[[harden.a]]\n", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_line(run, files, taken, text: str, message: str) -> None:
    path = config(files, text)
    result = run(
        "harden", files / "original.onnx", "--clean-dir", files / "clean.npz", "--config", path
    )
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"mmbm-onnx: error: {path}")
    assert message in line
    assert not taken


def test_a_line_that_may_be_another_is_not_told(run, files) -> None:
    text = "[harden]\npreprocess = '''\nepochs = '''\nepochs = 'x'\n"
    result = run("harden", files / "original.onnx", "--config", config(files, text))
    assert "mmbm.toml: epochs is 'x'" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = \xff\n", "is not UTF-8 text; save it as UTF-8"),
        ("seed = 3\n".encode("utf-16"), "is not UTF-8 text; save it as UTF-8"),
        (b"#" * (2 << 20), "not a file of options"),
        (b"mean = " + b"[" * 100_000, "is not valid TOML"),
        (b"seed = 3\0\n", "is not valid TOML"),
    ],
)
def test_files_that_are_none_are_told(run, files, content: bytes, message: str) -> None:
    path = files / "mmbm.toml"
    path.write_bytes(content)
    result = run("inspect", files / "original.onnx", "--config", path)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_windows_line_ends_and_marks_are_fine(run, files, taken) -> None:
    path = files / "mmbm.toml"
    path.write_bytes("\ufeff[inspect]\r\ninput = 'picture'\r\n".encode())
    run("inspect", files / "original.onnx", "--config", path)
    assert taken["input_name"] == "picture"


def test_a_missing_file_is_told_with_the_one_beside_it(run, files) -> None:
    config(files, "")
    result = run("inspect", files / "original.onnx", "--config", files / "mbm.toml")
    assert result.exit_code == 2
    assert "does not exist; did you mean 'mmbm.toml'?" in result.stderr


def test_every_command_takes_a_file_and_a_log_format() -> None:
    for name, command in main.commands.items():
        options = {option for param in command.params for option in param.opts}
        assert {"--config", "--log-format"} <= options or name == "completion", name


def test_a_new_command_needs_no_list_of_its_own(run, files, monkeypatch) -> None:
    from mmbm_onnx_cli.options import logging_options

    found: dict[str, Any] = {}

    @click.command()
    @click.argument("model")
    @click.option("--depth", type=int, multiple=True)
    @click.option("--near/--far", default=True)
    @logging_options
    def probe(**options: Any) -> None:
        found.update(options)

    monkeypatch.setitem(main.commands, "probe", probe)
    path = config(files, "[probe]\ndepth = [1, 2]\nnear = false\n")
    assert run("probe", "m", "--config", path).exit_code == 0
    assert (found["depth"], found["near"]) == ((1, 2), False)
