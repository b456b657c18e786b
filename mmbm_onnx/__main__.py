"""``python -m mmbm_onnx`` is the command ``mmbm-onnx``."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper


def run() -> None:
    """Run the command line as this process; ends by ``SystemExit`` or a signal."""
    _open_standard_streams()
    _escape_what_cannot_be_shown()
    from mmbm_onnx_cli.interrupts import exit_on_signals, ignore_signals

    exit_on_signals()  # before the other imports, which take a while

    from mmbm_onnx_cli.main import main

    try:
        main()
    finally:
        ignore_signals()


def _open_standard_streams() -> None:
    """Give a closed stdin, stdout or stderr (``2>&-``) to the null device: the next file to be
    opened would get its number, and whatever a library prints."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _escape_what_cannot_be_shown() -> None:
    """Print any path: one in letters that a stream's encoding lacks, such as Windows gives to files
    and pipes, or in bytes that are no text, must not end a run whose files are written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    run()
