"""Templates to bytes, and what all pages say in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from mmbm_onnx.evaluation.details import Shown
from mmbm_onnx.report import layout
from mmbm_onnx.report.html.figures import duration
from mmbm_onnx.report.html.pictures import View
from mmbm_onnx.report.html.svg import printable, short
from mmbm_onnx.report.layout import number


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_NAME = 34  # characters of a tensor's name that a row has room for
NO_BREAK = "\N{NO-BREAK SPACE}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmbm_onnx.report.html"),
        autoescape=True,  # names in models and class folders are anybody's text
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "number": number,
        "short": short,
        "brief": lambda name: layout.shorten(name, _NAME),
        "duration": duration,
    }
    return environment


def render(template: str, **values: Any) -> bytes:
    """A page in UTF-8."""
    text = _environment().get_template(template).render(**values)
    return text.encode("utf-8")


def percent(value: float | None) -> str:
    """A fraction in percent, never broken before its sign."""
    return layout.percent(value).replace(" ", NO_BREAK)


def points(value: float) -> str:
    """A difference of fractions in percentage points."""
    count = f"{100 * value:.2f}".rstrip("0").rstrip(".")
    return f"{count} point" if count == "1" else f"{count} points"


def gate_rows(gates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gates as a table shows them."""
    rows = []
    for gate in gates:
        limit = ""
        if gate["direction"] != "holds":
            limit = f"{gate['direction'].replace('_', ' ')} {_measured(gate, 'limit')}"
        name = gate["name"].replace("_", " ")
        rows.append({**gate, "words": name, "shown": _measured(gate, "value"), "bound": limit})
    return rows


def _measured(gate: Mapping[str, Any], key: str) -> str:
    value = gate[key]
    if value is None:
        return ""
    return percent(value) if gate["unit"] == "fraction" else number(value)


def class_name(index: int, names: Sequence[str]) -> str:
    """What a class is called: its name where there is one, or its number."""
    name = names[index] if 0 <= index < len(names) else ""
    return name if name and name != str(index) else f"class {index}"


def brief_name(index: int, names: Sequence[str]) -> str:
    """The same where it stands among classes."""
    return class_name(index, names).removeprefix("class ")


def cards(shown: Shown | None, view: View | None, names: Sequence[str]) -> list[dict[str, Any]]:
    """Samples as cards: a picture where they are images, and what was answered."""
    if shown is None:
        return []
    found = []
    for index in range(len(shown)):
        truth = None if shown.truth is None else int(shown.truth[index])
        p_value = None if shown.p_value is None else float(shown.p_value[index])
        answers = [int(shown.original[index]), int(shown.answered[index])]
        found.append(
            {
                "picture": None if view is None else view.picture(shown.x[index]),
                "truth": None if truth is None else class_name(truth, names),
                "original": brief_name(answers[0], names),
                "original_right": None if truth is None else answers[0] == truth,
                "answered": brief_name(answers[1], names),
                "answered_right": None if truth is None else answers[1] == truth,
                "p_value": None if p_value is None or not np.isfinite(p_value) else p_value,
                "flagged": None if shown.flagged is None else bool(shown.flagged[index]),
            }
        )
    return found
