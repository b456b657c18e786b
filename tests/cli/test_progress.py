"""The bar: on a terminal only, and gone at the end."""

from __future__ import annotations

import io
import sys

import pytest
from mmbm_onnx_cli.progress import ProgressBar

from mmbm_onnx.types import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, quiet: bool = False) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar(quiet=quiet) as bar:
        for step in range(3):
            bar(Progress("learn", step, 2, {"loss": 0.25, "accuracy": 0.5}))
        bar(Progress("evaluate", 1, 1, {}))
    return stream.getvalue()


def test_a_terminal_shows_phase_steps_and_figures(monkeypatch) -> None:
    text = drawn(monkeypatch, Terminal())
    assert "learn" in text and "evaluate" in text
    assert "loss=0.25" in text
    assert "accuracy=0.5" in text
    assert text.rsplit("\r", 1)[-1].strip() == ""


def test_nothing_is_drawn_off_a_terminal_or_when_quiet(monkeypatch) -> None:
    assert drawn(monkeypatch, io.StringIO()) == ""
    assert drawn(monkeypatch, Terminal(), quiet=True) == ""
