"""A bar on stderr for long jobs; nothing off a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmbm_onnx.types import Progress


class ProgressBar:
    """A progress callback that draws one bar per phase, and takes it away at the end.

    Args:
        quiet: Draw nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._silent = quiet or sys.stderr is None or not sys.stderr.isatty()
        self._phase = ""
        self._bar: Any = None

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
        if self._silent:
            return
        if event.phase != self._phase or self._bar is None:
            self._open(event)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in event.values.items()})
        self._bar.update(event.step - self._bar.n)

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
            bar_format="{desc:<10}{bar:20} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
