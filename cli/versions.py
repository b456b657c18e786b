"""``mmbm-onnx --version``: of this tool and what it runs on, without loading any of it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import click

from mmbm_onnx import __version__

from .output import NAME, emit


def version_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--version``."""
    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_tell,
        help="Show the versions of this tool, Python, ONNX, ONNX Runtime and torch, and exit.",
    )(command)


def _tell(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        emit("\n".join(f"{name} {version}" for name, version in _versions()))
        ctx.exit()


def _versions() -> list[tuple[str, str]]:
    """Names and versions; of ONNX Runtime whatever builds of it there are."""
    from importlib import metadata

    installed = {
        (distribution.metadata["Name"] or "").lower(): distribution.version
        for distribution in metadata.distributions()
    }
    runtimes = sorted(name for name in installed if name.startswith("onnxruntime"))
    wanted = ["onnx", *(runtimes or ["onnxruntime"]), "torch"]
    return [
        (NAME, __version__),
        ("python", platform.python_version()),
        *((name, installed.get(name, "not installed")) for name in wanted),
    ]
