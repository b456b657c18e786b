"""How a scan looks for small patterns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mmbm_onnx.runtime.batches import affordable_batch


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """How a scan is done. Every field is recorded in its report.

    Attributes:
        steps: Gradient steps of a pattern.
        starts: Patterns per class and norm, from different noise.
        samples_per_pattern: Clean samples that a step sees.
        goal: Share of the samples of other classes that a pattern is to drive to its class.
        batch_size: Samples that run together.
        most_classes: With more classes than these, all get a short look first, and those that
            patterns reach with the least are looked at in full.
        noise_inputs: Max-margin inputs from noise, per class (MM-BD).
        noise_steps: Gradient steps of each.
        noise_rate: Adam's learning rate for them, as a share of the input range.
    """

    steps: int = 60
    starts: int = 3
    samples_per_pattern: int = 6
    goal: float = 0.5
    batch_size: int = 64
    most_classes: int = 64
    noise_inputs: int = 6
    noise_steps: int = 60
    noise_rate: float = 0.02

    def for_inputs(self, size: int) -> ScanSettings:
        """These, with a batch that large inputs, ``size`` numbers each, leave memory for."""
        return replace(self, batch_size=affordable_batch(size, self.batch_size))

    def describe(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)
