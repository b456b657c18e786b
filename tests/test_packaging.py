"""What a user's installer is told, for systems that are not this one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def chosen(requirements: list[str], **system: str) -> list[str]:
    found = map(Requirement, requirements)
    return [one.name for one in found if one.marker is None or one.marker.evaluate(system)]


@pytest.mark.parametrize(
    ("platform", "machine", "python", "expected"),
    [
        ("linux", "x86_64", "3.13", "onnxruntime-gpu"),
        ("win32", "AMD64", "3.12", "onnxruntime-gpu"),
        ("linux", "aarch64", "3.11", "onnxruntime-gpu"),
        ("linux", "ppc64le", "3.12", "onnxruntime"),
        ("win32", "ARM64", "3.12", "onnxruntime"),
        ("darwin", "arm64", "3.12", "onnxruntime"),
        ("darwin", "x86_64", "3.11", "onnxruntime"),
    ],
)
def test_the_gpu_extra_is_one_runtime_that_has_a_wheel(
    platform: str, machine: str, python: str, expected: str
) -> None:
    system = {"sys_platform": platform, "platform_machine": machine, "python_version": python}
    extras = PROJECT["optional-dependencies"]
    assert chosen(extras["gpu"], **system) == [expected]
    assert chosen(extras["cpu"], **system) == ["onnxruntime"]


def test_versions_are_pinned_for_what_tests_need() -> None:
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {re.sub(r"[-_.]+", "-", Requirement(one).name) for one in wanted} <= names
