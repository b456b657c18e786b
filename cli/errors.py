"""From exceptions to one line on stderr and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mmbm_onnx.errors import MmbmError

from .output import NAME, say

OK = 0
GATE_FAILED = 1
FAILED = 2
NOTHING_TO_HARDEN = 3
INTERRUPTED = 130

EXIT_STATUS = """\b
Exit status:
  0    done, and all gates hold
  1    a gate failed, or a scan found something (files are written, the report says what)
  2    bad usage or bad input, or the run failed: nothing is written
  3    nothing to harden: no activation of the model takes a bound
  130  interrupted, 143 terminated (files are written all or none)"""


class InterruptionError(Exception):
    """Ctrl-C; click would print an empty line and exit with 1."""


class Group(click.Group):
    """A group that ends every run in one of our exit statuses, with one line for every error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptionError from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Parse, run, exit; always by ``SystemExit``."""
        status: Any
        settings = Settings()
        try:
            status = super().main(
                args, prog_name or NAME, complete_var, standalone_mode=False, obj=settings, **extra
            )
        except Exception as error:
            status = report(error, debug=settings.debug)
        sys.exit(status if isinstance(status, int) else OK)


class Settings:
    """What options say of stderr, known as soon as they are parsed."""

    debug = False
    quiet = False


def report(error: Exception, *, debug: bool) -> int:
    """Tell of an error in one line on stderr.

    Returns:
        The exit status.
    """
    if isinstance(error, (InterruptionError, click.Abort)):
        say("interrupted")
        return INTERRUPTED
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else NAME
        say(f"error: {error.format_message()} (see `{path} --help`)")
        return FAILED
    if isinstance(error, click.ClickException):
        say(f"error: {error.format_message()}")
        return FAILED
    if isinstance(error, MmbmError):
        say(f"error: {error}")
        return error.exit_status
    if isinstance(error, MemoryError):
        say("error: out of memory; use fewer samples or a smaller batch")
        return FAILED
    hint = "" if debug else " (run with --debug for the traceback)"
    say(f"internal error: {type(error).__name__}: {error}{hint}")
    return FAILED
