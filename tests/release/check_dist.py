"""Look at what ``make dist`` built: check_dist.py DIST OTHER.

DIST holds an sdist and the wheel built from it, OTHER the wheel built from the checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Written by setuptools; not in the checkout.
_GENERATED = re.compile(r"^(PKG-INFO|setup\.cfg|mmbm_onnx\.egg-info/.*)$")
_LEFT_OUT = {".gitignore"}


def only(folder: Path, pattern: str) -> Path:
    """The one file of this kind.

    Raises:
        SystemExit: There is none, or more.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder}: {len(found)} files {pattern}, expected 1")
    return found[0]


def members(path: Path) -> dict[str, bytes]:
    """Files of a wheel or an sdist, without the latter's folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        return {
            entry.name.split("/", 1)[1]: archive.extractfile(entry).read()
            for entry in archive.getmembers()
            if entry.isfile()
        }


def tracked() -> dict[str, bytes] | None:
    """Files under version control; None where there is no repository."""
    if not (ROOT / ".git").exists():
        return None
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if name]
    return {name: (ROOT / name).read_bytes() for name in names if (ROOT / name).is_file()}


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names that are in one alone, or whose contents differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def check(dist: Path, other: Path) -> list[str]:
    """What is wrong with them, one line each."""
    wrong = []
    source = members(only(dist, "*.tar.gz"))
    wheel = members(only(dist, "*.whl"))
    again = members(only(other, "*.whl"))
    if found := differences(wheel, again):
        wrong.append(f"the wheels of sdist and checkout differ: {', '.join(found)}")
    kept = tracked()
    if kept is not None:
        wanted = {name: value for name, value in kept.items() if name not in _LEFT_OUT}
        given = {name: value for name, value in source.items() if not _GENERATED.match(name)}
        if found := differences(wanted, given):
            wrong.append(f"sdist and checkout differ: {', '.join(found)}")
    installed = {name for name in wheel if ".dist-info/" not in name}
    sources = {f"mmbm_onnx_cli/{name[4:]}" for name in source if name.startswith("cli/")}
    sources |= {name for name in source if name.startswith("mmbm_onnx/")}
    if found := sorted(installed ^ sources):
        wrong.append(f"the wheel has not the packages of the sdist: {', '.join(found)}")
    return wrong


if __name__ == "__main__":
    problems = check(Path(sys.argv[1]), Path(sys.argv[2]))
    if problems:
        sys.exit("\n".join(problems))
    print(f"{only(Path(sys.argv[1]), '*.whl').name}: the same from sdist and checkout")
