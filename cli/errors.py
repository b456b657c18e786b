"""From exceptions to one line on stderr and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mmbm_onnx.errors import MmbmError, did_you_mean

from .config import origin
from .guides import guide
from .output import NAME, explain, logs_json, say, set_log_format, tell

OK = 0
GATE_FAILED = 1
FAILED = 2
NOTHING_TO_HARDEN = 3
INTERRUPTED = 130

EXIT_STATUS = """\b
Exit status:
  0    done, and all gates hold
  1    a gate failed, or a scan is suspicious or without a verdict (files are written)
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; one that there is not is told with the closest."""
        name = args[0]
        known = self.get_command(ctx, name) is not None
        if not (known or name.startswith("-") or ctx.resilient_parsing):
            commands = self.list_commands(ctx)
            hint = did_you_mean(name, commands) or f"; there are: {', '.join(commands)}"
            ctx.fail(f"No such command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            owners = [
                name
                for name, command in self.commands.items()
                if any(error.option_name in param.opts for param in command.params)
            ]
            if not owners:
                raise
            raise click.UsageError(
                f"{error.option_name} stands behind the command: "
                f"{NAME} {owners[0]} {error.option_name} ...",
                ctx,
            ) from None

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
        given = list(sys.argv[1:] if args is None else args)
        style = _log_format(given)
        set_log_format(style or "text", settled=bool(style))
        try:
            status = super().main(
                args, prog_name or NAME, complete_var, standalone_mode=False, obj=settings, **extra
            )
        except Exception as error:
            status = report(error, debug=settings.debug, given=given)
        finally:
            set_log_format("text")  # for whoever calls us next in this process
        sys.exit(status if isinstance(status, int) else OK)


class Settings:
    """What options say of stderr, known as soon as they are parsed."""

    debug = False
    quiet = False


def report(error: Exception, *, debug: bool, given: Sequence[str] = ()) -> int:
    """Tell of an error in one line on stderr.

    Args:
        error: What ended the command.
        debug: Whether to show the traceback.
        given: The arguments that it was called with.

    Returns:
        The exit status.
    """
    if isinstance(error, (InterruptionError, click.Abort)):
        say("interrupted", "error" if logs_json() else "info", exit_status=INTERRUPTED)
        return INTERRUPTED
    fields: dict[str, Any] = {"error": type(error).__name__}
    if debug and logs_json():
        fields["traceback"] = "".join(traceback.format_exception(error))
    elif debug:
        tell("".join(traceback.format_exception(error)))
    if isinstance(error, click.ClickException):
        lines = _of_click(error, given)
        explain(lines, "error", exit_status=FAILED, **fields)
        return FAILED
    if isinstance(error, MmbmError):
        say(str(error), "error", exit_status=error.exit_status, **fields)
        return error.exit_status
    if isinstance(error, MemoryError):
        text = "out of memory; use fewer samples or a smaller batch"
        say(text, "error", exit_status=FAILED, **fields)
        return FAILED
    hint = "" if debug else " (run with --debug for the traceback)"
    text = f"internal error: {type(error).__name__}: {error}{hint}"
    say(text, "error" if logs_json() else "info", exit_status=FAILED, **fields)
    return FAILED


def _of_click(error: click.ClickException, given: Sequence[str]) -> list[str]:
    """The lines that tell of wrong usage: one, unless a command was called with nothing at all."""
    if isinstance(error, click.BadParameter) and (where := origin(error.ctx, error.param)):
        return [" ".join(f"{where}: {error.message}".split())]
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return [text]
    ctx = error.ctx
    if isinstance(error, click.MissingParameter) and ctx is not None:
        if list(given) == [ctx.info_name]:
            return guide(ctx)
        if isinstance(error.param, click.Option) and error.param.help:
            text = f"{text} {' '.join(error.param.help.split())}"
    path = ctx.command_path if ctx is not None else NAME
    if ctx is not None and isinstance(ctx.command, click.Group) and text == "Missing command.":
        text = f"Missing command: {', '.join(ctx.command.list_commands(ctx))}"
    return [f"{text} (see `{path} --help`)"]


def _log_format(args: Sequence[str]) -> str:
    """What ``--log-format`` asks for, known before anything can be wrong with other arguments;
    empty where it is not given."""
    found = ""
    for arg, following in zip(args, [*args[1:], ""], strict=False):
        if arg == "--":
            break
        if arg == "--log-format":
            found = following
        elif arg.startswith("--log-format="):
            found = arg.partition("=")[2]
    return found
