"""Versions that are stated more than once agree, and pins fit the ranges they are of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mmbm_onnx

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    extra: [Requirement(text) for text in texts]
    for extra, texts in PROJECT["optional-dependencies"].items()
}
# Not installed here in any version but the pinned one.
FLOOR_NOT_TESTED = {"torch"}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def test_the_version_is_stated_once_more_and_alike() -> None:
    assert mmbm_onnx.__version__ == PROJECT["version"]


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    assert headings[0][0] in ("Unreleased", PROJECT["version"])
    released = [Version(name) for name, _ in headings if name != "Unreleased"]
    assert released == sorted(released, reverse=True)
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", day) for name, day in headings if day)
    # What is being worked on is the newest release, or will be the next.
    assert not released or Version(PROJECT["version"]) >= released[0]


def test_every_dependency_is_pinned_within_its_range() -> None:
    known = pins("constraints.txt")
    listed = [*BASE, *(one for extra in EXTRAS.values() for one in extra)]
    for requirement in listed:
        name = canonicalize_name(requirement.name)
        assert name in known, f"{name} is not in constraints.txt"
        assert known[name] in requirement.specifier, f"{requirement}, pinned to {known[name]}"


def test_lowest_versions_are_the_floors() -> None:
    known = pins("constraints-lowest.txt")
    declared = {canonicalize_name(r.name): r for r in [*BASE, *EXTRAS["cpu"]]}
    assert known.keys() == declared.keys()
    for name, requirement in declared.items():
        (floor,) = [s.version for s in requirement.specifier if s.operator == ">="]
        if name not in FLOOR_NOT_TESTED:
            assert known[name] == Version(floor), name


def test_the_runtimes_of_both_extras_have_one_floor() -> None:
    assert EXTRAS["cpu"][0].specifier == EXTRAS["gpu"][0].specifier
