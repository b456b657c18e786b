"""What a page of a hardening draws besides the figures of its JSON report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.evaluation.details import Inputs, Shown
from mmbm_onnx.graph.flow import Flow
from mmbm_onnx.rewriting.null import Null


@dataclass(frozen=True, eq=False)
class SiteDetail:
    """One bounded activation, in its own unit, on the calibration samples.

    Attributes:
        bounds: Its bounds, float32 ``(bounds,)``: one per channel, or one.
        highest: Largest activation without bounds, float32, of each channel ``(channels,)`` or
            ``(1,)``.
        touched: Share of the activations above each bound, ``(bounds,)``, fractions.
    """

    bounds: npt.NDArray[np.float32]
    highest: npt.NDArray[np.float32]
    touched: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Material:
    """What a hardening saw.

    Attributes:
        inputs: How samples are to be seen.
        flow: The activations, bounded or not, and which follow which.
        sites: Tensor name to detail, of the bounded ones.
        null: The detector's; None without one.
        odd: The calibration samples that the detector finds the most unusual; None without one.
    """

    inputs: Inputs
    flow: Flow
    sites: Mapping[str, SiteDetail]
    null: Null | None
    odd: Shown | None


@dataclass(frozen=True, eq=False)
class RecoveredTrigger:
    """A small universal pattern that turns clean samples to one class.

    Attributes:
        class_index: The class that samples go to.
        pattern: What is added to each of them, float32, a sample's shape in the model's layout and
            the unit of its input.
        before: Clean samples ``(k, *sample shape)``, in the unit of the model's input.
        after: The same with the pattern, as the model sees them (clipped to its range).
        flipped_share: Share of the clean samples of other classes that go to the class, a fraction.
        size: Root mean square of the pattern as a share of the input's range.
        decided_before: Decisions of the model on ``before``, int64 ``(k,)``; None where not known.
        decided_after: On ``after``.
        suspected: Whether the scan finds the class suspicious.
        note: One line on why, may be empty.

    Raises:
        ValueError: Shapes do not fit each other, or a share is none.
    """

    class_index: int
    pattern: npt.NDArray[Any]
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    flipped_share: float
    size: float
    decided_before: npt.NDArray[Any] | None = None
    decided_after: npt.NDArray[Any] | None = None
    suspected: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.before.shape != self.after.shape or self.before.shape[1:] != self.pattern.shape:
            raise ValueError(
                f"trigger of class {self.class_index}: samples {self.before.shape} and "
                f"{self.after.shape} do not fit a pattern {self.pattern.shape}"
            )
        for decided in (self.decided_before, self.decided_after):
            if decided is not None and decided.shape != self.before.shape[:1]:
                raise ValueError(
                    f"trigger of class {self.class_index}: decisions {decided.shape} do not fit "
                    f"{len(self.before)} samples"
                )
        if not 0 <= self.flipped_share <= 1:
            raise ValueError(
                f"trigger of class {self.class_index}: {self.flipped_share} is not a fraction"
            )


@dataclass(frozen=True, eq=False)
class ScanOutcome:
    """What a scan of the original found.

    Attributes:
        judged: Whether classes could be held against each other.
        suspected: Classes that a backdoor seems to lead to, the most suspicious first.
        triggers: Patterns that can be shown: of some suspected classes, or of the most exposed one.
    """

    judged: bool
    suspected: tuple[int, ...] = ()
    triggers: tuple[RecoveredTrigger, ...] = ()
