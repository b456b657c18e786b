"""What can be said of container files without building them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from containers import ROOT, copied, stages

FILES = sorted((ROOT / "containers").glob("*.Containerfile"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_one_for_each_kind_of_onnx_runtime() -> None:
    assert [path.stem for path in FILES] == ["cpu", "cuda"]


def test_all_that_the_package_is_built_from_is_copied(path: Path) -> None:
    names = {name for name, _ in copied(stages(path)[0])}
    assert all((ROOT / name).exists() for name in names)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["setuptools"]["package-dir"].values())
    assert needed | {"pyproject.toml", "constraints.txt"} == names


def test_versions_are_pinned(path: Path) -> None:
    for stage in stages(path):
        assert re.search(r":\d\S*", stage[0][1]), stage[0]
        for keyword, rest in stage:
            for command in rest.split("&&") if keyword == "RUN" else []:
                if "pip install" in command:
                    assert "--constraint constraints.txt" in command


def test_it_runs_the_command_line_as_nobody_in_particular(path: Path) -> None:
    last = dict(stages(path)[-1])
    assert int(last["USER"]) >= 1000
    assert last["ENTRYPOINT"] == '["/opt/mmbm/bin/mmbm-onnx"]'
    order = [keyword for keyword, _ in stages(path)[-1]]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word in ("RUN", "COPY"))


def test_each_takes_its_extra(path: Path) -> None:
    extra = {"cpu": ".[cpu]", "cuda": ".[gpu]"}[path.stem]
    assert f'"{extra}"' in path.read_text()
