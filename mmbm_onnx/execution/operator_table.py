"""The table of operators in ``docs/operators.md``, from the registry: ``make pages`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnx.defs

import mmbm_onnx.execution.operators  # noqa: F401  (fills the registry)
from mmbm_onnx.execution.expansion import has_body
from mmbm_onnx.execution.registry import registered

_DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"

_PAGE = """# Operators

What `harden` can execute and differentiate in torch; `verify` and `inspect` need none of it. Every
model is compared with ONNX Runtime on clean samples before anything is learned, and refused where
the two disagree; a node that cannot be executed is named with its output.

{count} operators are implemented, from the opset given up to {newest}, the newest of onnx {onnx}.
Of {more} more the body that the ONNX standard gives them is executed. No strings, no sequences, no
4- and 8-bit floating point. This page is written by `make pages`.

| operator | from opset | limits |
|---|---|---|
{rows}

## By their body

As far as that is made of operators above.

{bodies}

## Not executed

{others}
"""


def render() -> str:
    """The document, Markdown."""
    versions: dict[tuple[str, str], list[int]] = {}
    limits: dict[tuple[str, str], dict[str, None]] = {}
    for entry in registered():
        key = (entry.domain, entry.name)
        versions.setdefault(key, []).append(entry.since)
        limits.setdefault(key, {}).update({entry.limits: None} if entry.limits else {})
    standard = {
        (schema.domain, schema.name): schema
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == "" and not schema.deprecated
    }
    rest = {key: schema for key, schema in standard.items() if key not in versions}
    bodies = sorted(name for (_, name), schema in rest.items() if has_body(schema))
    others = sorted(name for (_, name), schema in rest.items() if not has_body(schema))
    rows = [
        f"| {name if not domain else f'{domain}::{name}'} | {min(versions[domain, name])} | "
        f"{'; '.join(limits[domain, name])} |"
        for domain, name in sorted(versions)
    ]
    return _PAGE.format(
        count=len(rows),
        newest=onnx.defs.onnx_opset_version(),
        onnx=onnx.__version__,
        more=len(bodies),
        rows="\n".join(rows),
        bodies=_wrapped(bodies),
        others=_wrapped(others),
    )


def _wrapped(names: list[str], width: int = 98) -> str:
    lines = [""]
    for index, name in enumerate(names):
        word = name + ("," if index < len(names) - 1 else ".")
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return "\n".join(lines)


if __name__ == "__main__":
    _DOCUMENT.write_text(render(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{_DOCUMENT} written\n")
