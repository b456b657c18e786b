"""Files for the command line, and a way to run it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import toy_models
from click.testing import CliRunner, Result
from command_line import QUICK, Job, environment, mmbm
from mmbm_onnx_cli.main import main
from quadrants import Case

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


@pytest.fixture
def inputs(case: Case, tmp_path: Path) -> Path:
    """A directory of its own with model.onnx and clean.npz."""
    shutil.copy(case.model, tmp_path)
    shutil.copy(case.npz, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def job(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """``harden`` with an image folder, telling in JSON."""
    folder = tmp_path_factory.mktemp("job")
    shutil.copy(case.model, folder)
    args = ("harden", folder / "model.onnx", "--clean-dir", case.folder, "--format", "json")
    return Job(folder, mmbm(*args, *QUICK, env=environment(PYTHONHASHSEED="1")))


@pytest.fixture(scope="session")
def tensor_job(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """``harden`` with one bound per tensor."""
    return _archive_job(case, tmp_path_factory.mktemp("tensor"), "--granularity", "tensor")


@pytest.fixture(scope="session")
def plain_job(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """``harden`` with bounds per channel that are not folded into weights."""
    return _archive_job(case, tmp_path_factory.mktemp("plain"), "--fold", "never")


def _archive_job(case: Case, folder: Path, *options: str) -> Job:
    """``harden`` with an archive, run in the model's directory."""
    shutil.copy(case.model, folder)
    args = ("harden", "model.onnx", "--clean-dir", case.npz, *options)
    return Job(folder, mmbm(*args, *QUICK, cwd=folder))


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which importing torch fails."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "torch.py").write_text('raise ImportError("no torch here")\n')
    others = os.environ.get("PYTHONPATH")
    return environment(PYTHONPATH=os.pathsep.join([str(folder), *([others] if others else [])]))


def write_model(path: Path, proto: onnx.ModelProto) -> None:
    path.write_bytes(proto.SerializeToString(deterministic=True))


def write_samples(path: Path, samples: Samples) -> None:
    parts = {"x": samples.x, "y": samples.y, "target": samples.target}
    np.savez(path, **{name: array for name, array in parts.items() if array is not None})
