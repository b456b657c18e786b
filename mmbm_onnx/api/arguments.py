"""Arguments of the wrong type or out of range, told by name before any work."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

from mmbm_onnx.errors import OptionError

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


def texts(**arguments: Any) -> None:
    """Refuse arguments that are neither text nor None.

    Raises:
        OptionError: One is something else.
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, str):
            raise OptionError(f"{name} is {value!r}, expected text or None")
