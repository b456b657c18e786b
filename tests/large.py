"""Small models treated as those too large for memory are, which no test can wait for."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from mmbm_onnx.graph import external, read


def treat_as_large(monkeypatch: pytest.MonkeyPatch, least: int = 1) -> None:
    """From now on weights of so many bytes stay in their files."""
    monkeypatch.setattr(read, "MAP_ABOVE", 0)
    monkeypatch.setattr(external, "_LEAST", least)


def save_outside(proto: onnx.ModelProto, path: Path, data: str = "weights.bin") -> Path:
    """Save a model with all initializers of its main graph in a file beside it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(
        copy,
        path,
        save_as_external_data=True,
        location=data,
        size_threshold=0,
        convert_attribute=False,
    )
    return path
