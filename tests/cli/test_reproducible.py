"""The same seed gives the same files, byte for byte, in another process too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from command_line import QUICK, Job, environment, mmbm
from quadrants import Case


def without_times(path: Path) -> dict[str, Any]:
    """A report without what may differ: times, and where files are."""
    report: dict[str, Any] = json.loads(path.read_text())
    for entry in (*report["files"], report["model"]):
        del entry["path"]
    for entry in report["latency"]:
        del entry["seconds"], entry["ratio"], entry["ratio_low"], entry["ratio_high"]
        del entry["rounds"]
    report["seconds"] = list(report["seconds"])
    return report


def test_another_process_with_another_hash_seed_writes_the_same(
    job: Job, case: Case, tmp_path: Path
) -> None:
    shutil.copy(case.model, tmp_path)
    args = ("harden", "model.onnx", "--clean-dir", case.folder, "--seed", 0, "-q")
    done = mmbm(*args, *QUICK, cwd=tmp_path, env=environment(PYTHONHASHSEED="4242"))
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    for role in ("hardened", "detector"):
        name = f"model.{role}.onnx"
        assert (tmp_path / name).read_bytes() == (job.folder / name).read_bytes()
    mine, other = (folder / "model.report.json" for folder in (tmp_path, job.folder))
    assert without_times(mine) == without_times(other)
