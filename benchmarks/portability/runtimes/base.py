"""What a runtime has to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

Batches = Sequence[np.ndarray]


class Missing(Exception):  # noqa: N818
    """The runtime is not here; says why."""


class Runtime(Protocol):
    """A runtime that takes ONNX files with one input."""

    def version(self) -> str:
        """Its version.

        Raises:
            Missing: It is not here.
        """

    def run(self, model: Path, batches: Batches) -> dict[str, np.ndarray]:
        """Outputs by name, of all batches one behind the other."""


def joined(names: Sequence[str], answers: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Answers of batches, one behind the other."""
    return {
        name: np.concatenate(parts)
        for name, parts in zip(names, zip(*answers, strict=True), strict=True)
    }
