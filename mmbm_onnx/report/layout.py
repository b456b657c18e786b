"""Aligned plain text for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence

from mmbm_onnx.errors import printable, shortened

NAME_WIDTH = 44


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Columns padded to their widest cell, two blanks between them.

    Args:
        headers: One per column.
        rows: Cells, as many per row as headers.
        align: ``l`` or ``r`` per column.

    Raises:
        ValueError: A row or ``align`` has another number of columns.
    """
    if len(align) != len(headers) or any(len(row) != len(headers) for row in rows):
        raise ValueError(f"a table of {len(headers)} columns has a row or alignment of others")
    lines = [list(headers), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    )


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Names and values, the values aligned; pairs without a value are left out."""
    shown = [(name, value) for name, value in items if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def broken(items: Sequence[str], width: int) -> list[str]:
    """Items side by side, commas between, in lines of at most so many characters; an item stays
    whole."""
    lines: list[str] = []
    for place, item in enumerate(items):
        item += "," if place < len(items) - 1 else ""
        if lines and len(lines[-1]) + 1 + len(item) <= width:
            lines[-1] += f" {item}"
        else:
            lines.append(item)
    return lines


def shorten(text: str, width: int = NAME_WIDTH) -> str:
    """``text`` with its middle left out where it is too long, line breaks and controls replaced."""
    return shortened(printable(text), width)


def percent(value: float | None) -> str:
    """A fraction in percent, ``-`` for None."""
    return "-" if value is None else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A figure in four digits, ``-`` for None."""
    return "-" if value is None else f"{value:.4g}"
