"""What a model consists of on disk: its own file and, where it is large, one with its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from mmbm_onnx.graph.mapped import Place, mapped, moved
from mmbm_onnx.graph.write import Content, check_data_name, data_path, parts_of


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of a file of weights, read anew each time they are gone through."""

    parts: tuple[Place | int, ...]

    def __iter__(self) -> Iterator[bytes]:
        """The bytes, a few at a time.

        Raises:
            ModelError: A file that they come from changed.
        """
        for part in self.parts:
            if isinstance(part, int):
                yield bytes(part)
            else:
                yield from part.chunks()


def contents(proto: onnx.ModelProto, path: Path) -> dict[Path, Content]:
    """The files of a model that is written to ``path``, its own first.

    Args:
        proto: The model; weights that stayed in their files go into a new one beside it.
        path: Where it goes.

    Raises:
        OutputError: Its name is one that no model may give to its data.
    """
    if not mapped(proto):
        return {path: proto.SerializeToString(deterministic=True)}
    check_data_name(path)
    copy, parts = moved(proto, data_path(path).name)
    return {
        path: copy.SerializeToString(deterministic=True),
        data_path(path): Weights(tuple(parts)),
    }


def digest(files: Mapping[Path, Content]) -> str:
    """SHA-256 (hex) of a model's files, as ``OnnxModel.sha256`` of the model in them."""
    total = hashlib.sha256()
    for content in files.values():
        for chunk in parts_of(content):
            total.update(chunk)
    return total.hexdigest()
