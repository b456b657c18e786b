"""How long each phase of a job took, and the news of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mmbm_onnx.types import Progress


@dataclass(frozen=True, slots=True)
class Clock:
    """Times phases and tells a progress callback of their beginning and end.

    Attributes:
        progress: The callback, or None.
        seconds: Phase to the time it took, in order.
    """

    progress: Callable[[Progress], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, *, told: bool = True) -> Iterator[None]:
        """Time what is done inside.

        Args:
            name: The phase.
            told: Whether to tell of its beginning and end; not where it tells of its own steps.
        """
        if told and self.progress is not None:
            self.progress(Progress(name, 0, 1, {}))
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
        if told and self.progress is not None:
            self.progress(Progress(name, 1, 1, {}))

    def teller(self, phase: str) -> Callable[[int, int], None] | None:
        """A callback that takes (steps done, steps in all) of a phase, if anybody listens."""
        told = self.progress
        if told is None:
            return None
        return lambda done, total: told(Progress(phase, done, total, {}))
