"""What differs on Windows and macOS, as far as it can be seen from here."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment
from mmbm_onnx_cli import interrupts, output

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("mmbm_onnx/**/*.py"), *ROOT.glob("cli/*.py")])
POSIX_ONLY = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios"}


def calls(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_module_is_imported_that_windows_lacks() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & POSIX_ONLY, path


def test_signals_and_flags_that_windows_lacks_are_asked_for() -> None:
    lacking = {"SIGHUP", "SIGPIPE", "SIGALRM", "SIGKILL", "pthread_sigmask", "O_NOFOLLOW"}
    lacking |= {"O_NONBLOCK", "O_DIRECTORY", "fork", "getuid", "geteuid", "uname", "mkfifo"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id not in ("os", "signal") or node.attr not in lacking, path


def test_text_is_always_utf_8() -> None:
    """Windows takes another encoding where none is named."""
    for path in SOURCES:
        for call in calls(ast.parse(path.read_text("utf-8"))):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            keywords = {keyword.arg for keyword in call.keywords}
            if name == "read_text":
                assert call.args or "encoding" in keywords, f"{path}:{call.lineno}"
            elif name == "write_text":
                assert "encoding" in keywords, f"{path}:{call.lineno}"
            elif name == "open" or (isinstance(call.func, ast.Name) and call.func.id == "open"):
                mode = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
                binary = any("b" in str(value) for value in mode)
                ours = isinstance(call.func, ast.Attribute) and not call.args
                module = ast.unparse(call.func) in ("os.open", "Image.open", "archive.open")
                assert binary or ours or module or "encoding" in keywords, f"{path}:{call.lineno}"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "模 \\udcff"), ("cp1252", "\\u6a21 \\udcff")],
)
def test_names_that_a_stream_cannot_show_are_escaped(encoding: str, shown: str) -> None:
    """Windows gives files and pipes an encoding of one language."""
    program = (
        "from mmbm_onnx.__main__ import _escape_what_cannot_be_shown as escape\n"
        "from mmbm_onnx_cli.output import emit, say\n"
        "escape()\nfor tell in (emit, say): tell('模 \\udcff')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env=environment(PYTHONIOENCODING=f"{encoding}:strict"),
    )
    assert done.stdout.decode("utf-8").strip() == shown
    assert done.stderr.decode("utf-8").strip() == f"mmbm-onnx: {shown}"


def test_a_reader_that_left_is_no_error_on_windows_either(monkeypatch) -> None:
    left = OSError(errno.EINVAL, "Invalid argument")
    assert not output._reader_left(left)
    monkeypatch.setattr(os, "name", "nt")
    assert output._reader_left(left)
    assert not output._reader_left(OSError(errno.ENOSPC, "full"))


def test_last_words_leave_no_escape_sequences_on_windows(monkeypatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert interrupts._last_words("interrupted", 130) == "\r\x1b[K\rmmbm-onnx: interrupted\n"
    monkeypatch.setattr(os, "name", "nt")
    text = interrupts._last_words("interrupted", 130)
    assert "\x1b" not in text
    blank, line = text.removeprefix("\r").split("\r")
    assert not blank.strip() and line == "mmbm-onnx: interrupted\n"
