"""What the benchmark of learning tells of what it measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.__main__ import METHODS, render, run


def result() -> dict:
    seconds = {
        METHODS[0]: {"a": 20.0, "b": 10.0},
        METHODS[1]: {"a": 199.0, "b": 150.0},
        "classes": {10: 50.0, 1000: 60.0},
        "samples": {250: 10.0, 4000: 85.0},
    }
    return {
        "machine": {"processor": "some processor"},
        "libraries": {"torch": "2.0", "onnxruntime": "1.0", "click": "8"},
        "date": "2026-01-02",
        "rows": [
            {"table": table, "of": of, "seconds": value, "peak": 2**30}
            for table, values in seconds.items()
            for of, value in values.items()
        ]
        + [{"table": METHODS[0], "of": "b", "seconds": 20.0, "peak": 2**30}],
    }


def test_it_tells_ratios_to_the_default_and_to_the_smallest() -> None:
    text = render(result())
    assert "| a | 20.0 s | 199.0 s | 9.95 |" in text  # and not that it is ten
    assert "| b | 10.0 s, 20.0 s | 150.0 s | 10.00 |" in text
    assert "| 1000 | 60.0 | 1.20 | 1024 MiB |" in text
    assert "| 4000 | 85.0 | 8.50 | 1024 MiB |" in text
    assert "torch 2.0, onnxruntime 1.0; some processor; 2026-01-02" in text


def test_a_measurement_is_of_a_process_of_its_own() -> None:
    found = run(kind="random", classes=3, samples=40, epochs=1)
    assert np.isfinite(found["seconds"]) and found["seconds"] > 0
    assert found["peak"] > 100 * 2**20  # bytes: torch alone takes more


def test_one_that_fails_tells_why() -> None:
    with pytest.raises(SystemExit, match="KeyError"):
        run(kind="no such kind")
