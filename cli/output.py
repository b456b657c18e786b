"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from mmbm_onnx.errors import OutputError

NAME = "mmbm-onnx"


def emit(text: str) -> None:
    """A result on stdout. Where the reader is gone (``| head``), the exit status still counts.

    Raises:
        OutputError: stdout cannot be written to, as on a full disk.
    """
    import click

    try:
        click.echo(text)
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        raise OutputError(f"cannot write to stdout: {error.strerror}") from None


def say(text: str) -> None:
    """One line on stderr; where nobody can be told, the exit status still is."""
    import click

    try:
        click.echo(f"{NAME}: {' '.join(text.split())}", err=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Write to a stream no more: Python would fail once more when it flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(text: str) -> None:
    """A warning on stderr."""
    say(f"warning: {text}")
