"""Inputs that try to reach a large margin for a class: what the bounds are learned against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import climb, max_margin_inputs
from mmbm_onnx.learning.settings import Settings

_MOST_INPUTS = 1000  # max-margin inputs of all classes together


class Attackers(Protocol):
    """A source of attacking inputs, renewed as the bounds move."""

    @property
    def at_a_time(self) -> int:
        """Number of classes that are attacked between two renewals."""

    @property
    def missed(self) -> int:
        """Number of classes that no attack has been made for so far."""

    def renew(self, bounds: Mapping[str, Tensor]) -> None:
        """Make or improve the attacks, given the bounds as they are now."""

    def batch(self, samples: Tensor) -> tuple[Points, Tensor]:
        """As many attacks as clean samples (by index, ``(m,)``): inputs and their classes."""

    def reached(self, targets: Tensor, margins: Tensor) -> None:
        """Be told what margins ``(m,)`` attacks on classes ``(m,)`` reached, in mean clean
        margins."""

    def state(self) -> dict[str, Tensor]:
        """What later attacks depend on besides the random generator, for ``restore``."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Come back to a state, of attackers made with the same arguments."""


class NoiseAttackers:
    """Max-margin inputs: uniform noise that climbed the margin of a class (MM-BD, MMAC).

    Args:
        classifier: The network.
        clean: Clean samples; their range is that of valid inputs.
        classes: Number of classes.
        settings: How many inputs, made how, renewed against what.
        generator: Source of randomness, on the CPU.
        progress: Called with (steps done, steps in all) while they are made.
    """

    def __init__(
        self,
        classifier: Classifier,
        clean: Points,
        classes: int,
        settings: Settings,
        generator: torch.Generator,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._classifier = classifier
        self._clean = clean
        self._range = float(clean.values.min()), float(clean.values.max())
        self._classes = classes
        self._settings = settings
        self._generator = generator
        self._progress = progress
        self._inputs = clean[:0]
        self._targets = torch.empty(0, dtype=torch.int64)
        self._pool = torch.empty(0, dtype=torch.int64)

    @property
    def at_a_time(self) -> int:
        """All of them."""
        return self._classes

    @property
    def missed(self) -> int:
        """None: every class has its inputs."""
        return 0

    def renew(self, bounds: Mapping[str, Tensor]) -> None:
        """Make the inputs from noise, or, against the bounded network, move them on."""
        low, high = self._range
        if len(self._inputs) and self._settings.attack_bounded:
            self._inputs = climb(
                self._classifier,
                self._inputs,
                self._targets,
                steps=self._settings.renewal_steps,
                settings=self._settings,
                low=low,
                high=high,
                bounds=bounds,
            )
            return
        self._inputs, self._targets = max_margin_inputs(
            self._classifier,
            self._clean,
            self._classes,
            self._settings,
            per_class=max(1, min(self._settings.inputs_per_class, _MOST_INPUTS // self._classes)),
            low=low,
            high=high,
            generator=self._generator,
            progress=self._progress,
        )
        self._pool = self._pool[:0]

    def batch(self, samples: Tensor) -> tuple[Points, Tensor]:
        """Inputs in random order, each once before any again; at most as many as there are."""
        if len(self._pool) == 0:
            self._pool = torch.randperm(len(self._inputs), generator=self._generator)
        picks = self._pool[: self._settings.batch_size].to(samples.device)
        self._pool = self._pool[self._settings.batch_size :]
        return self._inputs[picks], self._targets[picks]

    def reached(self, targets: Tensor, margins: Tensor) -> None:
        """Nothing follows from it."""

    def state(self) -> dict[str, Tensor]:
        """The inputs, their classes, and which of them are still to be used."""
        state = {"inputs": self._inputs.values, "targets": self._targets, "pool": self._pool}
        if self._inputs.samples is not None:
            state["samples"] = self._inputs.samples
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Come back to a state."""
        device = self._classifier.device
        samples = state["samples"].to(device) if "samples" in state else None
        self._inputs = Points(state["inputs"].to(device), samples)
        self._targets = state["targets"].to(device)
        self._pool = state["pool"]
