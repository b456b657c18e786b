"""Ctrl-C and requests to end: one line, an exit status, and out, whatever was being done.

Python runs a handler between two of its own steps, so a long call into a library (loading a
large model, one training step) is finished first.

No exception is raised: it might come in the middle of a library's import, be turned into another
or be passed over, and the user would read of that. Nothing is left behind, since files are
written in one piece with signals held back (``graph.write``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from types import FrameType

from .output import NAME, logs_json, record

# Those that the system has: Windows knows no SIGHUP, and nobody else SIGBREAK.
_WORDS = {
    "SIGINT": "interrupted",
    "SIGTERM": "terminated",
    "SIGHUP": "terminated",
    "SIGBREAK": "terminated",
}


def exit_on_signals() -> None:
    """From now on, SIGINT, SIGTERM and SIGHUP end the process, unless the caller had them ignored.

    It ends as soon as Python is back from the call into C that it may be in.
    """
    _handle(_exit)


def ignore_signals() -> None:
    """From now on the exit status is settled: what is left of the process, no signal changes."""
    _handle(signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for name in _WORDS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # nobody there to be told
        os.write(2, _last_words(_WORDS[signal.Signals(number).name], 128 + number).encode())
    os._exit(128 + number)


def _last_words(word: str, status: int) -> str:
    if logs_json():
        return record(word, "error", exit_status=status) + "\n"
    line = f"{NAME}: {word}\n"
    if not os.isatty(2):
        return line
    # A progress bar stands on the terminal's last line; not every console knows ANSI.
    blank = " " * (shutil.get_terminal_size().columns - 1) if os.name == "nt" else "\x1b[K"
    return f"\r{blank}\r{line}"
