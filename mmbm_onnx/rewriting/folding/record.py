"""What was folded, kept in the graph's metadata, so that ``verify`` can do it again and compare."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.provenance import PREFIX
from mmbm_onnx.types import Bounds

FOLDED = "folded"
"""Provenance key: JSON of how bounds were folded, and of all bounds."""


@dataclass(frozen=True, slots=True)
class Record:
    """Arguments of ``fold_bounds``.

    Attributes:
        bounds: The bounds.
        depthwise: Whether depthwise convolutions were allowed.
        unscaled: Values that had to stay what they were.
    """

    bounds: Bounds
    depthwise: bool
    unscaled: tuple[str, ...]

    def write(self) -> str:
        """The record as text: little-endian float32 in base64."""
        bounds = {
            name: [bound.ndim, base64.b64encode(bound.astype("<f4").tobytes()).decode()]
            for name, bound in self.bounds.items()
        }
        entries = {
            "depthwise": self.depthwise,
            "unscaled": list(self.unscaled),
            "bounds": bounds,
        }
        return json.dumps(entries, separators=(",", ":"))


def read_record(provenance: Mapping[str, str]) -> Record | None:
    """The record in a graph's metadata, or None where nothing was folded.

    Raises:
        RewriteError: It cannot be read.
    """
    text = provenance.get(FOLDED)
    if text is None:
        return None
    try:
        entries = json.loads(text)
        bounds = {
            name: np.frombuffer(base64.b64decode(values, validate=True), "<f4")
            .astype(np.float32)
            .reshape((-1,) if rank else ())
            for name, (rank, values) in entries["bounds"].items()
        }
        if not all(bound.size for bound in bounds.values()):
            raise ValueError("a bound without a value")
        return Record(
            Bounds(bounds),
            bool(entries["depthwise"]),
            tuple(str(name) for name in entries["unscaled"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RewriteError(f"its metadata {PREFIX}{FOLDED} cannot be read") from None
