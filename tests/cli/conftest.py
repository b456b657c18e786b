"""Files for the command line, and a way to run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import toy_models
from click.testing import CliRunner, Result
from mmbm_onnx_cli.main import main

from mmbm_onnx.types import Samples

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def call(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with original.onnx, hardened.onnx, detector.onnx, clean.npz, triggered.npz."""
    write_model(tmp_path / "original.onnx", toy_models.original_proto())
    write_model(tmp_path / "hardened.onnx", toy_models.hardened().proto)
    write_model(tmp_path / "detector.onnx", toy_models.detector().proto)
    write_samples(tmp_path / "clean.npz", toy_models.clean())
    write_samples(tmp_path / "triggered.npz", toy_models.triggered())
    return tmp_path


def write_model(path: Path, proto: onnx.ModelProto) -> None:
    path.write_bytes(proto.SerializeToString(deterministic=True))


def write_samples(path: Path, samples: Samples) -> None:
    parts = {"x": samples.x, "y": samples.y, "target": samples.target}
    np.savez(path, **{name: array for name, array in parts.items() if array is not None})
