"""A gate: one measured figure, or fact, that must hold for a graph to be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["fraction", "count", "ratio", ""]
Direction = Literal["at_most", "at_least", "holds"]

# A drop such as 0.90 - 0.88 comes out above 0.02; no fraction of fewer than 10^8 samples is
# closer to a limit than this without meeting it.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition and whether it holds.

    Attributes:
        name: What is judged, in snake case; unique among the gates of a run.
        passed: Whether it holds.
        value: The measured figure, or None for a fact that is no number, or a figure that could
            not be measured (which fails).
        limit: What ``value`` is compared with, or None.
        direction: ``"at_most"`` or ``"at_least"`` for figures, ``"holds"`` for facts.
        unit: Unit of ``value`` and ``limit``.
        message: One line for people: why it failed, or what was found; may be empty.
    """

    name: str
    passed: bool
    value: float | None = None
    limit: float | None = None
    direction: Direction = "holds"
    unit: Unit = ""
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The gate as JSON takes it."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "limit": self.limit,
            "direction": self.direction,
            "unit": self.unit,
            "message": self.message,
        }


def at_most(
    name: str, value: float, limit: float, *, unit: Unit = "fraction", message: str = ""
) -> Gate:
    """A gate on an upper limit; a value that is not finite fails."""
    passed = math.isfinite(value) and value <= limit + _ROUNDING
    return Gate(name, passed, _finite(value), limit, "at_most", unit, message)


def at_least(
    name: str, value: float, limit: float, *, unit: Unit = "fraction", message: str = ""
) -> Gate:
    """A gate on a lower limit; a value that is not finite fails."""
    passed = math.isfinite(value) and value >= limit - _ROUNDING
    return Gate(name, passed, _finite(value), limit, "at_least", unit, message)


def holds(name: str, passed: bool, message: str = "") -> Gate:
    """A gate on a fact."""
    return Gate(name, passed, message=message)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
