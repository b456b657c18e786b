"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys

NAME = "mmbm-onnx"


def emit(text: str) -> None:
    """A result on stdout. Where the reader is gone (``| head``), the exit status still counts."""
    import click

    try:
        click.echo(text)
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """One line on stderr."""
    import click

    click.echo(f"{NAME}: {' '.join(text.split())}", err=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    say(f"warning: {text}")
