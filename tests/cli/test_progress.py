"""The bar: on a terminal only, and gone at the end."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
from mmbm_onnx_cli import output, progress
from mmbm_onnx_cli.output import wants_colour, warn
from mmbm_onnx_cli.progress import ProgressBar

from mmbm_onnx.types import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield
    output.set_log_format("text")


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, quiet: bool = False) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    figures = {"epoch": 3, "epochs": 25, "weight": 7.5, "loss": 0.25, "accuracy": 0.5}
    with ProgressBar(quiet=quiet) as bar:
        for step in range(3):
            bar(Progress("learn", step, 2, figures))
        bar(Progress("evaluate", 1, 1, {}))
    return stream.getvalue()


def test_a_terminal_shows_phase_steps_and_figures(monkeypatch) -> None:
    text = drawn(monkeypatch, Terminal())
    assert "learn" in text and "evaluate" in text
    assert re.search(r"2/2 \[\d\d:\d\d<\d\d:\d\d, epoch 3/25, accuracy 50\.0%, loss 0\.25\]", text)
    assert text.rsplit("\r", 1)[-1].strip() == ""


def test_nothing_is_drawn_off_a_terminal_or_when_quiet(monkeypatch) -> None:
    assert drawn(monkeypatch, io.StringIO()) == ""
    assert drawn(monkeypatch, Terminal(), quiet=True) == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert drawn(monkeypatch, io.StringIO()) == ""
    monkeypatch.setenv("TERM", "dumb")
    assert drawn(monkeypatch, Terminal()) == ""


def test_colours_are_those_that_were_asked_for(monkeypatch) -> None:
    assert "\x1b[32m" in drawn(monkeypatch, Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in drawn(monkeypatch, Terminal())


@pytest.mark.parametrize(
    ("settings", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_the_environment_decides_on_colours(monkeypatch, settings, terminal, expected) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal() if terminal else io.StringIO()) == expected
    assert not wants_colour(None)


def test_a_line_takes_the_bars_place_and_leaves_it_below(monkeypatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    with ProgressBar() as bar:
        bar(Progress("learn", 1, 2, {}))
        stream.seek(0)
        stream.truncate()
        warn("odd")
    before, after = stream.getvalue().split("mmbm-onnx: warning: odd\n")
    assert before.endswith("\r") and not before.strip()
    assert "learn" in after


def test_a_log_is_told_of_phases_and_now_and_then_of_steps(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    output.set_log_format("json")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar() as bar:
        for step in range(1, 21):
            now[0] += 1
            bar(Progress("learn", step, 20, {"epoch": 1, "epochs": 1, "loss": float("nan")}))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["step"] for event in events] == [1, 6, 11, 16, 20]
    assert all(event["stage"] == "learn" and event["total"] == 20 for event in events)
    assert events[0]["message"] == "learn: 1 of 20"
    assert (events[0]["epoch"], events[0]["loss"]) == (1, None)


def test_a_quiet_log_is_told_nothing(monkeypatch) -> None:
    output.set_log_format("json")
    assert drawn(monkeypatch, Terminal(), quiet=True) == ""
