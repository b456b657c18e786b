"""Results on stdout, everything else on stderr: lines for people, or JSON for programs."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TextIO

from mmbm_onnx.errors import OutputError, printable

NAME = "mmbm-onnx"
Level = Literal["debug", "info", "warning", "error"]
_COLOURS = {"warning": "yellow", "error": "red", "PASS": "green", "FAIL": "red"}


class Line(Protocol):
    """What stands on the terminal's last line, such as a progress bar."""

    def clear(self) -> None:
        """Take it away, for a line to be printed."""

    def refresh(self) -> None:
        """Draw it again."""


class _Stderr:
    """How stderr is written to at present."""

    json = False
    settled = False
    line: Line | None = None


def set_log_format(style: str, *, settled: bool = False) -> None:
    """From now on, lines on stderr are ``"text"`` or ``"json"``.

    Args:
        style: Which.
        settled: Whether the command line says so, and a file is not asked.
    """
    _Stderr.json = style == "json"
    _Stderr.settled = settled


def propose_log_format(style: str) -> None:
    """As ``set_log_format``, unless the command line has settled it."""
    if not _Stderr.settled:
        _Stderr.json = style == "json"


def logs_json() -> bool:
    """Whether lines on stderr are JSON."""
    return _Stderr.json


def set_line(line: Line | None) -> None:
    """What must give way to a line on stderr."""
    _Stderr.line = line


def wants_colour(stream: TextIO | None) -> bool:
    """Whether a stream takes colours: a terminal does, unless NO_COLOR is set; with FORCE_COLOR
    anything does."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def emit(text: str) -> None:
    """A result on stdout. Where the reader is gone (``| head``), the exit status still counts.

    Raises:
        OutputError: stdout cannot be written to, as on a full disk.
    """
    import click

    colour = wants_colour(sys.stdout)
    try:
        click.echo(_with_verdicts(text) if colour else text, color=colour)
    except OSError as error:
        _give_up(sys.stdout)
        if not _reader_left(error):
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None


def say(text: str, level: Level = "info", **fields: Any) -> None:
    """One line on stderr; where nobody can be told, the exit status still is.

    Args:
        text: The message.
        level: How bad it is.
        fields: What else JSON has, plain types.
    """
    if _Stderr.json:
        _write(record(text, level, **fields))
        return
    message = " ".join(text.split())
    _write(f"{NAME}: {_mark(level)}{printable(message)}")


def explain(lines: list[str], level: Level, **fields: Any) -> None:
    """A message of several lines on stderr; one object in JSON."""
    if _Stderr.json:
        _write(record("\n".join(lines), level, **fields))
    else:
        first, *rest = map(printable, lines)
        _write("\n".join([f"{NAME}: {_mark(level)}{first}", *rest]))


def tell(text: str) -> None:
    """Lines on stderr as they are, such as a traceback's, but for what is not printable."""
    _write("\n".join(printable(line) for line in text.expandtabs().splitlines()))


def warn(text: str) -> None:
    """A warning on stderr."""
    say(text, "warning")


def record(text: str, level: Level, **fields: Any) -> str:
    """A line of the log in JSON: time (UTC), level, message, and the fields."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    numbers = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
    return json.dumps({"time": now, "level": level, "message": text, **numbers}, allow_nan=False)


def _mark(level: Level) -> str:
    import click

    if level not in _COLOURS:
        return ""
    mark = f"{level}:"
    if wants_colour(sys.stderr):
        mark = click.style(mark, fg=_COLOURS[level], bold=True)
    return f"{mark} "


def _write(text: str) -> None:
    import click

    line = _Stderr.line
    try:
        if line is not None:
            line.clear()
        click.echo(text, err=True, color=wants_colour(sys.stderr))
        if line is not None:
            line.refresh()
    except OSError:
        _give_up(sys.stderr)


def _with_verdicts(text: str) -> str:
    import click

    return re.sub(
        r"^(PASS|FAIL)\b",
        lambda match: click.style(match[1], fg=_COLOURS[match[1]], bold=True),
        text,
        flags=re.MULTILINE,
    )


def _reader_left(error: OSError) -> bool:
    """Whether nobody reads a pipe any more, for which Windows has another number."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def _give_up(stream: TextIO) -> None:
    """Write to a stream no more: Python would fail once more when it flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
