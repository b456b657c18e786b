"""Where a long job is: a bar on a terminal, events in a log of JSON, and otherwise nothing."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .output import logs_json, say, set_line, wants_colour

if TYPE_CHECKING:
    from mmbm_onnx.types import Progress

_EVERY = 5.0  # seconds between two events of a phase in a log


class ProgressBar:
    """A progress callback that draws one bar per phase, and takes it away at the end.

    In a log of JSON it tells the beginning and end of each phase instead, and every few seconds
    how far it is.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._logs = logs_json() and not quiet
        self._draws = not (quiet or logs_json()) and _is_terminal()
        self._phase = ""
        self._bar: Any = None
        self._told = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, event: Progress) -> None:
        """Show where the job is."""
        if self._logs:
            self._log(event)
        elif self._draws:
            self._draw(event)

    def _log(self, event: Progress) -> None:
        now = time.monotonic()
        bounds = event.phase != self._phase or event.step >= event.total
        if not bounds and now - self._told < _EVERY:
            return
        self._phase, self._told = event.phase, now
        text = f"{event.phase}: {event.step} of {event.total}"
        place = {"stage": event.phase, "step": event.step, "total": event.total}
        say(text, "info", **place, **event.values)

    def _draw(self, event: Progress) -> None:
        if event.phase != self._phase or self._bar is None:
            self._open(event)
        self._bar.total = event.total
        self._bar.set_postfix_str(_figures(event), refresh=False)
        self._bar.update(event.step - self._bar.n)
        if event.step >= event.total:
            self._bar.refresh()  # at other times no more often than eyes follow

    def _open(self, event: Progress) -> None:
        from tqdm import tqdm

        self._close()
        self._phase = event.phase
        self._bar = tqdm(
            total=event.total,
            desc=event.phase,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            colour="green" if wants_colour(sys.stderr) else None,
            bar_format="{desc:<8} {bar:16} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )
        set_line(self._bar)

    def _close(self) -> None:
        if self._bar is not None:
            set_line(None)
            self._bar.close()
            self._bar = None


def _is_terminal() -> bool:
    if sys.stderr is None or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty()


def _figures(event: Progress) -> str:
    """What fits beside a bar: the epoch, and the figures that people know."""
    values = dict(event.values)
    epoch, epochs = values.pop("epoch", None), values.pop("epochs", None)
    shown = {name: values[name] for name in ("accuracy", "loss") if name in values} or values
    parts = [f"epoch {epoch:.0f}/{epochs:.0f}"] if epoch is not None and epochs is not None else []
    texts = [
        f"{name} {value:.1%}" if name == "accuracy" else f"{name} {value:.3g}"
        for name, value in shown.items()
    ]
    return ", ".join([*parts, *texts])
