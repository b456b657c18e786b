"""Runtimes that Node.js can call."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.portability.runtimes.base import Batches, Missing, joined

_SCRIPT = Path(__file__).with_name("run.mjs")
_TYPES = {"float32": "<f4", "float16": "<f2", "int64": "<i8", "bool": "?"}


def install(folder: Path, *packages: str) -> None:
    """Install packages with npm, and none of what their scripts would download."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]
    subprocess.run([*command, str(folder), *packages], check=True, capture_output=True)


class Node:
    """A package of npm with the JavaScript API of ONNX Runtime.

    Args:
        package: Its name.
        folder: What holds ``node_modules``.
    """

    def __init__(self, package: str, folder: Path) -> None:
        self._package = package
        self._folder = folder

    def version(self) -> str:
        if shutil.which("node") is None:
            raise Missing("Node.js is not installed")
        manifest = self._folder / "node_modules" / self._package / "package.json"
        if not manifest.exists():
            raise Missing(f"the package {self._package} is not installed in {self._folder}")
        return str(json.loads(manifest.read_text())["version"])

    def run(self, model: Path, batches: Batches) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            work = Path(place)  # inside, so that the script finds its packages
            script = shutil.copy(_SCRIPT, work)
            job = {"model": str(model.resolve()), "type": batches[0].dtype.name, "shapes": []}
            for index, batch in enumerate(batches):
                job["shapes"].append(batch.shape)
                stored = np.ascontiguousarray(batch, _TYPES[batch.dtype.name])
                (work / f"in-{index}").write_bytes(stored.tobytes())
            (work / "job.json").write_text(json.dumps(job))
            command = ["node", script, self._package]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            told = json.loads((work / "told.json").read_text())
            return joined(
                told["names"],
                [
                    [_array(work / f"out-{b}-{o}", *known) for o, known in enumerate(outputs)]
                    for b, outputs in enumerate(told["outputs"])
                ],
            )


def _array(path: Path, kind: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), _TYPES[kind]).reshape(shape)
