"""Shells complete commands, options and the files that fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command, environment
from test_help import loaded_by

VARIABLE = "_MMBM_ONNX_COMPLETE"


def asked(*words: str, shell: str = "bash") -> list[str]:
    """What the program answers a shell that completes the last of the words."""
    cword = words[-1] if shell == "fish" else str(len(words) - 1)
    env = environment(
        **{VARIABLE: f"{shell}_complete"}, COMP_WORDS=" ".join(words), COMP_CWORD=cword
    )
    done = subprocess.run(command(), capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_commands_options_and_choices_are_completed() -> None:
    assert asked("mmbm-onnx", "ha") == ["plain,harden"]
    assert asked("mmbm-onnx", "harden", "--clean") == ["plain,--clean-dir"]
    assert set(asked("mmbm-onnx", "verify", "--log-format", "")) == {"plain,text", "plain,json"}
    assert asked("mmbm-onnx", "completion", "z") == ["plain,zsh"]


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        (("harden", ""), ".onnx"),
        (("verify", "a.onnx", ""), ".onnx"),
        (("bench", "a.onnx", "b.onnx", ""), ".onnx"),
        (("harden", "a.onnx", "--clean-dir", ""), ".npz"),
        (("verify", "--config", ""), ".toml"),
        (("harden", "--preprocess", ""), ".json"),
    ],
)
def test_paths_are_completed_to_what_fits(words: tuple[str, ...], suffix: str) -> None:
    assert asked("mmbm-onnx", *words) == [f"suffix,{suffix}"]


def test_every_shell_is_answered_in_its_own_form() -> None:
    assert asked("mmbm-onnx", "har", shell="zsh") == [
        "plain",
        "harden",
        "Write a hardened graph, a detector and a report.",
    ]
    assert asked("mmbm-onnx", "harden", "", shell="zsh") == ["suffix", ".onnx", "_"]
    (line,) = asked("mmbm-onnx", "har", shell="fish")
    assert line.startswith("plain,harden\t")


def test_completing_imports_nothing_heavy(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mmbm-onnx harden --")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert loaded_by() == (0, set())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_that_of_the_shell(run, monkeypatch, shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"{VARIABLE}={shell}_complete" in script
    assert "suffix" in script
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    assert run("completion").stdout == script


def test_a_shell_that_is_not_known_is_told(run, monkeypatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    result = run("completion")
    assert result.exit_code == 2
    assert "say which shell: bash, zsh, fish" in result.stderr
    assert "'tcsh' is not one of" in run("completion", "tcsh").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_sound(run, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(run("completion", shell).stdout)
    subprocess.run([shell, "-n", script], check=True)


def test_bash_completes_a_command_line(run, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "mmbm-onnx"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mmbm_onnx "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(run("completion", "bash").stdout)
    work = tmp_path / "work"
    (work / "models").mkdir(parents=True)
    for name in ("a model.onnx", "model.onnx", "model.report.json", "notes.txt"):
        (work / name).touch()
    for words, expected in [
        (("mmbm-onnx", "insp"), {"inspect"}),
        (("mmbm-onnx", "inspect", ""), {"a model.onnx", "model.onnx", "models"}),
        (("mmbm-onnx", "inspect", "mod"), {"model.onnx", "models"}),
        (("mmbm-onnx", "harden", "--resu"), {"--resume"}),
    ]:
        listed = " ".join(f"'{word}'" for word in words)
        text = f"""
            source ../script
            compopt() {{ :; }}  # works in a completion that readline asked for only
            COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}
            _mmbm_onnx_completion mmbm-onnx '{words[-1]}' '{words[-2]}'
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "--norc", "-c", text],
            cwd=work,
            capture_output=True,
            text=True,
            env=environment(PATH=path),
        )
        assert done.stderr == ""
        assert set(done.stdout.splitlines()) == expected
