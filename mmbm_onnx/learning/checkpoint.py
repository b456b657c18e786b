"""The state of learning on disk, so that a run that was stopped can go on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbm_onnx.data.state_file import pack, unpack
from mmbm_onnx.errors import DataError, OutputError
from mmbm_onnx.graph.write import write_files


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the rest of a run depends on.

    Attributes:
        values: Plain JSON types.
        tensors: By name; float32, float64, int64 or uint8.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix/``, without that."""
        start = f"{prefix}/"
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


@dataclass
class Checkpoint:
    """A file that the state of learning is kept in while it lasts.

    Attributes:
        path: The file; ``.npz`` without pickles.
        job: What the state depends on (see ``fingerprint``); of another job it is refused.
        every: Seconds between two states that are written.
        resume: Whether to go on from the file, if it is there.
        warnings: Why a state could not be written, one line at most.
    """

    path: Path
    job: str
    every: float = 60.0
    resume: bool = False
    warnings: list[str] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time to write a state."""
        return not self.warnings and time.monotonic() - self._last >= self.every

    def save(self, state: State) -> None:
        """Replace the file by a newer state. Learning goes on where that fails, with a warning."""
        header = {"job": self.job, "values": state.values}
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.tensors.items()}
        content = pack(header, arrays)
        try:
            write_files({self.path: content}, force=True)
        except OutputError as error:
            self.warnings.append(f"learning could not be resumed if it were stopped: {error}")
        self._last = time.monotonic()

    def load(self) -> State | None:
        """The state to go on from, None without ``resume`` or a file.

        Raises:
            DataError: The file is no checkpoint, damaged, or of another job.
        """
        if not self.resume or not self.path.exists():
            return None
        way_out = "delete it to start from the beginning"
        try:
            header, arrays = unpack(self.path)
        except DataError as error:
            raise DataError(f"{error}; {way_out}") from None
        if header.get("job") != self.job:
            raise DataError(
                f"{self.path}: is the checkpoint of another job (another model, clean set, option "
                f"or version); {way_out}"
            )
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return State(header["values"], tensors)


def fingerprint(parts: Iterable[Any], arrays: Iterable[np.ndarray[Any, Any] | None]) -> str:
    """SHA-256 in hex of plain JSON types, and of arrays by their bytes."""
    found = hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode())
    for array in arrays:
        if array is None:
            found.update(b"none")
        else:
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()
