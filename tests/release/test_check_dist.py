"""What the check of built distributions notices."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import check_dist
import pytest

FILES = {
    "mmbm_onnx/__init__.py": b"one",
    "cli/main.py": b"two",
    "README.md": b"three",
    "tests/test_it.py": b"four",
}
WHEEL = {"mmbm_onnx/__init__.py": b"one", "mmbm_onnx_cli/main.py": b"two"}


def write(folder: Path, source: dict[str, bytes] | None, wheel: dict[str, bytes]) -> Path:
    folder.mkdir()
    if source is not None:
        with tarfile.open(folder / "mmbm_onnx-1.tar.gz", "w:gz") as archive:
            for name, content in {**source, "PKG-INFO": b"generated"}.items():
                entry = tarfile.TarInfo(f"mmbm_onnx-1/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    with zipfile.ZipFile(folder / "mmbm_onnx-1.whl", "w") as archive:
        for name, content in {**wheel, "mmbm_onnx-1.dist-info/RECORD": b""}.items():
            archive.writestr(name, content)
    return folder


def found(
    tmp_path: Path, source: dict[str, bytes], wheel: dict[str, bytes], other: dict[str, bytes]
) -> str:
    return "\n".join(
        check_dist.check(
            write(tmp_path / "dist", source, wheel), write(tmp_path / "other", None, other)
        )
    )


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_dist, "tracked", lambda: {**FILES, ".gitignore": b"five"})


def test_nothing_is_wrong_with_what_agrees(tmp_path: Path) -> None:
    assert found(tmp_path, FILES, WHEEL, WHEEL) == ""


def test_a_module_that_a_build_left_behind_is_told(tmp_path: Path) -> None:
    stale = {**WHEEL, "mmbm_onnx/old.py": b""}
    assert "sdist and checkout differ: mmbm_onnx/old.py" in found(tmp_path, FILES, WHEEL, stale)


def test_what_the_sdist_lacks_and_what_it_should_not_hold_is_told(tmp_path: Path) -> None:
    source = {name: value for name, value in FILES.items() if name != "tests/test_it.py"}
    source["build/junk"] = b""
    told = found(tmp_path, source, WHEEL, WHEEL)
    assert told == "sdist and checkout differ: build/junk, tests/test_it.py"


def test_a_package_that_is_not_listed_is_told(tmp_path: Path) -> None:
    source = {**FILES, "mmbm_onnx/room/__init__.py": b""}
    told = found(tmp_path, source, WHEEL, WHEEL)
    assert "the wheel has not the packages of the sdist: mmbm_onnx/room/__init__.py" in told


def test_two_wheels_are_one_too_many(tmp_path: Path) -> None:
    dist = write(tmp_path / "dist", FILES, WHEEL)
    (dist / "mmbm_onnx-0.whl").touch()
    with pytest.raises(SystemExit, match="2 files"):
        check_dist.check(dist, dist)
