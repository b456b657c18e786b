"""Imports run one way, and torch stays in its rooms: read from the source, nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("mmbm_onnx/**/*.py"), *ROOT.glob("cli/**/*.py")])

ORDER = [
    ("errors", "types"),
    ("graph",),
    ("runtime",),
    ("data",),
    ("execution",),
    ("learning",),
    ("scanning",),
    ("rewriting",),
    ("evaluation",),
    ("report",),
    ("pipeline",),
    ("api",),
    ("package",),  # mmbm_onnx/__init__.py, whose names are loaded when first used
    ("cli",),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
TORCH_ROOMS = {"execution", "learning", "scanning", "pipeline"}
LAZY_ROOMS = {"api", "cli"}
TYPED_ROOMS = {"api", "package", "cli"}


@dataclass(frozen=True)
class Import:
    """One imported name: ``module`` or ``module.attribute``, and where the statement stands."""

    name: str
    line: int
    lazy: bool
    typing_only: bool

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    @property
    def room(self) -> str | None:
        """The room it comes from, None for modules of others and for the version alone."""
        parts = self.name.split(".")
        if parts[0] == "mmbm_onnx_cli":
            return "cli"
        if parts[0] != "mmbm_onnx" or self.name == "mmbm_onnx.__version__":
            return None
        return parts[1] if len(parts) > 1 and parts[1] in RANK else "package"


def imports_of(source: str, package: str) -> list[Import]:
    """Every import in a module's source; ``package`` resolves relative ones."""

    def walk(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, lazy, typing_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, lazy, True)
            for child in node.orelse:
                yield from walk(child, lazy, typing_only)
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside, typing_only)

    return list(walk(ast.parse(source), False, False))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "cli" or parts == ("mmbm_onnx", "__main__"):
        return "cli"
    return "package" if parts[1] == "__init__" else parts[1]


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(["mmbm_onnx_cli" if parts[0] == "cli" else parts[0], *parts[1:]])


def order_violations(room: str, found: list[Import]) -> list[str]:
    return [
        f"line {one.line}: {room} imports {one.name}"
        for one in found
        if one.room not in (None, room) and RANK[one.room] >= RANK[room]
    ]


def torch_violations(room: str, found: list[Import]) -> list[str]:
    """Imports that would bring torch to a room that must do without it."""
    if room in TORCH_ROOMS:
        return []
    bad = []
    for one in found:
        if one.top == "torch":
            allowed = room == "api" and (one.lazy or one.typing_only)
        elif one.room in TORCH_ROOMS:
            allowed = (room in LAZY_ROOMS and one.lazy) or (room in TYPED_ROOMS and one.typing_only)
        else:
            allowed = True
        if not allowed:
            bad.append(f"line {one.line}: {room} imports {one.name}")
    return bad


def runtime_violations(room: str, found: list[Import]) -> list[str]:
    """ONNX Runtime is optional: one room knows it, and imports it when it is needed."""
    return [
        f"line {one.line}: {room} imports {one.name}"
        for one in found
        if one.top == "onnxruntime" and not (room == "runtime" and (one.lazy or one.typing_only))
    ]


def violations(check) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}, {violation}"
        for path in FILES
        for violation in check(room_of(path), imports_of(path.read_text("utf-8"), package_of(path)))
    ]


def test_every_file_is_in_a_known_room():
    assert {"mmbm_onnx/errors.py", "mmbm_onnx/data/samples.py"} <= {
        path.relative_to(ROOT).as_posix() for path in FILES
    }
    assert {room_of(path) for path in FILES} <= RANK.keys()


def test_imports_run_one_way():
    assert violations(order_violations) == []


def test_torch_stays_in_its_rooms():
    assert violations(torch_violations) == []


def test_onnx_runtime_stays_in_runtime_and_is_imported_late():
    assert violations(runtime_violations) == []


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("graph", "import mmbm_onnx.data", True),
        ("graph", "from mmbm_onnx.data import split", True),
        ("graph", "from mmbm_onnx import data", True),
        ("graph", "from mmbm_onnx import harden", True),
        ("graph", "from ..report import tables", True),
        ("graph", "def f():\n    from mmbm_onnx.api import x", True),
        ("graph", "if TYPE_CHECKING:\n    from mmbm_onnx.api import x", True),
        ("errors", "from mmbm_onnx.types import Site", True),
        ("report", "import mmbm_onnx_cli.main", True),
        ("graph", "from mmbm_onnx import __version__", False),
        ("graph", "from . import walk\nfrom .walk import nodes\nimport numpy.data", False),
        ("data", "from mmbm_onnx.runtime import Session", False),
        ("cli", "from mmbm_onnx import harden\nfrom mmbm_onnx_cli import options", False),
    ],
)
def test_order_is_really_checked(room, source, caught):
    found = imports_of(source, f"mmbm_onnx.{room}")
    assert bool(order_violations(room, found)) == caught


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("rewriting", "import torch.nn", True),
        ("rewriting", "def f():\n    import torch", True),
        ("rewriting", "from mmbm_onnx.execution import executor", True),
        ("evaluation", "from mmbm_onnx.learning.fit import fit", True),
        ("api", "import torch", True),
        ("api", "try:\n    from torch import nn\nexcept ImportError:\n    pass", True),
        ("api", "class A:\n    from mmbm_onnx.learning import fit", True),
        ("cli", "def f():\n    import torch", True),
        ("api", "def f():\n    from torch import nn", False),
        ("api", "if TYPE_CHECKING:\n    import torch", False),
        ("api", "async def f():\n    from mmbm_onnx.learning import fit", False),
        ("learning", "import torch", False),
        ("rewriting", "import torchless", False),
    ],
)
def test_torch_is_really_checked(room, source, caught):
    found = imports_of(source, f"mmbm_onnx.{room}")
    assert bool(torch_violations(room, found)) == caught


def test_onnx_runtime_is_really_checked():
    assert runtime_violations("runtime", imports_of("import onnxruntime", "mmbm_onnx.runtime"))
    late = imports_of("def f():\n    import onnxruntime", "mmbm_onnx.runtime")
    assert not runtime_violations("runtime", late)
    assert runtime_violations("data", late)


def test_every_package_is_built_into_the_wheel() -> None:
    root = ROOT
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert listed is not None
    found = [
        ".".join(folder.relative_to(root).parts)
        for folder in [root / "mmbm_onnx", *(root / "mmbm_onnx").rglob("*")]
        if (folder / "__init__.py").exists()
    ]
    assert sorted(re.findall(r'"(.*?)"', listed[1])) == sorted([*found, "mmbm_onnx_cli"])
