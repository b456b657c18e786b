"""Arguments of the wrong type or out of range, told by name before any work."""

from __future__ import annotations

import math
import operator
import os
from numbers import Real
from pathlib import Path
from typing import Any

from mmbm_onnx.data.state_file import is_checkpoint
from mmbm_onnx.errors import OptionError, OutputError

MOST_SEED = 2**63 - 1
"""What torch's generators take as a seed without reading it as a negative number."""


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as a plain int.

    Args:
        name: Of the argument.
        value: An integer of Python or NumPy.
        least, most: The range, both ends included; without ``most`` it has no upper end.

    Raises:
        OptionError: It is no integer, or out of range.
    """
    expected = f"{least} or more" if most is None else f"{least} to {most}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise OptionError(f"{name} is {value!r}, expected an integer, {expected}") from None
    if number < least or (most is not None and number > most):
        raise OptionError(f"{name} is {number}, expected {expected}")
    return number


def fraction(name: str, value: Any, *, ends: bool) -> float:
    """The value as a plain float between 0 and 1; with ``ends``, 0 and 1 are allowed too.

    Raises:
        OptionError: It is no number, or out of range.
    """
    expected = "a fraction from 0 to 1" if ends else "a fraction between 0 and 1"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"{name} is {value!r}, expected {expected}")
    number = float(value)
    if not (0 <= number <= 1 if ends else 0 < number < 1):
        raise OptionError(f"{name} is {value}, expected {expected}")
    return number


def positive(name: str, value: Any) -> float:
    """The value as a plain float above 0.

    Raises:
        OptionError: It is no number, not finite, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise OptionError(f"{name} is {value!r}, expected a number above 0")
    if value <= 0:
        raise OptionError(f"{name} is {value}, expected a number above 0")
    return float(value)


def numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    """The values as plain floats.

    Raises:
        OptionError: They are not so many finite numbers.
    """
    try:
        found = tuple(value)
        right = len(found) == count and all(
            not isinstance(number, bool) and isinstance(number, Real) and math.isfinite(number)
            for number in found
        )
    except TypeError:
        right = False
    if not right:
        raise OptionError(f"{name} is {value!r}, expected {count} numbers")
    return tuple(float(number) for number in found)


def texts(**arguments: Any) -> None:
    """Refuse arguments that are neither text nor None.

    Raises:
        OptionError: One is something else.
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, str):
            raise OptionError(f"{name} is {value!r}, expected text or None")


def check_checkpoint(path: Path, *, restart: bool) -> None:
    """Whether a new run may keep its state in a file.

    Args:
        path: The file, there or not.
        restart: Whether a checkpoint that is there may be replaced.

    Raises:
        OutputError: A checkpoint is there and may not, or something else is.
    """
    if not os.path.lexists(path):
        return
    if not is_checkpoint(path):
        raise OutputError(f"{path}: exists and is no checkpoint, which would be kept there")
    if not restart:
        raise OutputError(
            f"{path}: is there from a run that was stopped; go on with --resume (resume=True), or "
            "start again with --force (restart=True)"
        )
