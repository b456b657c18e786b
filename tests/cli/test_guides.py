"""A command that is called with nothing says what it needs."""

from __future__ import annotations

import shlex

import click
import pytest
from mmbm_onnx_cli.main import main

NEEDY = [
    name
    for name, command in main.commands.items()
    if any(param.required for param in command.params)
]


def test_harden_says_what_it_needs_and_what_comes_first(run) -> None:
    result = run("harden")
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "mmbm-onnx: error: harden needs MODEL and --clean-dir"
    assert any(line.startswith("  MODEL ") and "ONNX file" in line for line in lines)
    assert any(line.startswith("  --clean-dir PATH ") and "one folder" in line for line in lines)
    assert "  mmbm-onnx harden model.onnx --clean-dir data/" in lines
    assert "  mmbm-onnx inspect model.onnx" in lines
    assert lines[-1] == "All options: mmbm-onnx harden --help"


@pytest.mark.parametrize("name", NEEDY)
def test_every_command_names_all_that_it_requires(run, name: str) -> None:
    result = run(name)
    assert (result.exit_code, result.stdout) == (2, "")
    for param in main.commands[name].params:
        if param.required:
            assert (param.opts[0] if isinstance(param, click.Option) else param.name) in (
                result.stderr if isinstance(param, click.Option) else result.stderr.lower()
            ) or param.metavar in result.stderr


@pytest.mark.parametrize("name", NEEDY)
def test_examples_can_be_typed(run, monkeypatch, tmp_path, name: str) -> None:
    typed = [
        line.strip() for line in run(name).stderr.splitlines() if line.startswith("  mmbm-onnx ")
    ]
    assert typed
    monkeypatch.chdir(tmp_path)
    for text in typed:
        args = shlex.split(text)[1:]
        for word in args[1:]:
            if word.endswith("/"):
                (tmp_path / word).mkdir(exist_ok=True)
            elif not word.startswith("-"):
                (tmp_path / word).touch()
        with main.make_context("mmbm-onnx", list(args)) as ctx:
            command = main.commands[args[0]]
            command.make_context(args[0], args[1:], parent=ctx)


def test_a_command_without_a_guide_is_told_by_its_usage(run, monkeypatch) -> None:
    command = click.Command(
        "probe", params=[click.Argument(["model"]), click.Option(["--much"], required=True)]
    )
    monkeypatch.setitem(main.commands, "probe", command)
    lines = run("probe").stderr.splitlines()
    assert lines[0] == "mmbm-onnx: error: probe needs MODEL and --much"
    assert "  mmbm-onnx probe MODEL --much TEXT" in lines
