"""Names out of files that nobody vouches for, in what is told on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from mmbm_onnx_cli import output

EVIL = "evil\x1b[31m\u202egnp" + 5000 * "n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier whose output has such a name, and its file another."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 4] x) => (float[N, 3] y) '
        "<float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> "
        "{ r = Relu (x) y = MatMul (r, w) }"
    )
    proto.graph.node[1].output[0] = proto.graph.output[0].name = EVIL
    path = tmp_path / "mo\x1b]0;del\u202e.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_no_name_acts_on_the_terminal(run, model: Path) -> None:
    result = run("inspect", model, "--logits", "zz")
    assert result.exit_code == 2
    assert result.stderr.removesuffix("\n").isprintable()
    assert "mo?]0;del?.onnx: no tensor named 'zz'" in result.stderr
    assert "there are: r, evil?[31m?gnpn" in result.stderr
    assert len(result.stderr) < 400 + len(str(model))


def test_tracebacks_keep_their_lines_and_nothing_else(run, model: Path) -> None:
    lines = run("inspect", model, "--logits", "zz", "--debug").stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert all(map(str.isprintable, lines))


def test_json_escapes_them(run, model: Path) -> None:
    result = run("inspect", model, "--logits", "zz", "--log-format", "json")
    assert result.stderr.removesuffix("\n").isascii()
    assert "\x1b" not in result.stderr
    assert "mo\x1b]0;del\u202e.onnx: no" in json.loads(result.stderr)["message"]


def test_our_own_colours_and_lines_stay(capsys, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.warn("a\x1b[2Jb")
    output.explain(["one\x9b", "  two\u2066"], "error")
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "mmbm-onnx: \x1b[33m\x1b[1mwarning:\x1b[0m a?[2Jb"
    assert second == "mmbm-onnx: \x1b[31m\x1b[1merror:\x1b[0m one?"
    assert third == "  two?"
