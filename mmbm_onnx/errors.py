"""Errors that a user may see: one line each, naming what is wrong and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class MmbmError(Exception):
    """Base of every error raised on purpose; its text is one line, fit for stderr.

    ``exit_status`` is what the command line returns for it.
    """

    exit_status = 2


class ModelError(MmbmError):
    """The ONNX file cannot be read, is invalid, or has a shape the tool cannot work with."""


class UnsupportedOperatorError(ModelError):
    """The graph uses an operator, or an attribute of one, that cannot be executed in torch."""


class DataError(MmbmError):
    """The clean (or triggered) set cannot be read or cannot be used with the model."""


class OptionError(MmbmError):
    """Options contradict each other or do not fit the model."""


class ParityError(MmbmError):
    """The torch execution of the graph differs from ONNX Runtime; learning would be wrong."""


class RuntimeMissingError(MmbmError):
    """ONNX Runtime is not installed, or the requested execution provider is not available."""


class OutputError(MmbmError):
    """A file cannot be written where it was asked for, or would overwrite another."""


class RewriteError(MmbmError):
    """A written graph failed its own checks; nothing is moved into place."""


class NothingToHardenError(MmbmError):
    """The graph has no activation that can take a bound."""

    exit_status = 3


def printable(text: str) -> str:
    """``text`` with ``?`` for what a terminal might act on: controls, marks of direction, breaks of
    lines. Bytes of file names that are no text stay, for the stream to escape."""
    return "".join(
        char if char.isprintable() or "\udc80" <= char <= "\udcff" else "?" for char in text
    )


def shortened(text: str, width: int = 80) -> str:
    """``text`` with its middle left out where it is too long."""
    if len(text) <= width:
        return text
    tail = (width - 3) * 2 // 3
    return f"{text[: width - 3 - tail]}...{text[-tail:]}"


def listing(names: Sequence[str], most: int = 8) -> str:
    """The first names, each no longer than one can read."""
    shown = ", ".join(shortened(name) for name in names[:most])
    return f"{shown}, ..." if len(names) > most else shown


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that was probably meant, or None: letters may differ in case.

    Args:
        name: What was given, and is not known.
        known: The names there are.
        cutoff: How much of it must agree, 0 to 1.
    """
    import difflib  # only where something went wrong

    by_folded: dict[str, str] = {}
    for one in known:
        by_folded.setdefault(one.casefold(), one)
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a message about a name that is not known; empty where nothing comes close.

    Args:
        name, known, cutoff: As for ``closest``.
    """
    found = closest(name, known, cutoff=cutoff)
    return f"; did you mean {shortened(found)!r}?" if found is not None else ""
