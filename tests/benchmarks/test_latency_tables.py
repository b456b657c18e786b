"""Tables of times at inference."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.latency.__main__ import _cell, mean


def test_the_mean_is_of_batches_whose_samples_go_on_by_chance() -> None:
    assert mean(1.0, 2.0, 2.0, 1, 0.05) == pytest.approx(1.05)
    # Of two: none 0.81, one 0.18, both 0.01.
    assert mean(1.0, 1.5, 3.0, 2, 0.1) == pytest.approx(0.81 + 0.18 * 1.5 + 0.01 * 3.0)
    # Of eight, what grows evenly from nothing is share times all.
    assert mean(1.0, 1.125, 2.0, 8, 0.05) == pytest.approx(1.05)


def test_a_cell_tells_quartiles_of_one_kind_of_traffic_and_ratios_of_several() -> None:
    def timed(ratio: float, size: int) -> dict[str, Any]:
        return {"ratio": ratio, "ratio_low": ratio - 0.1, "ratio_high": ratio + 0.1,
                "batch_size": size}  # fmt: skip

    assert _cell({"usual": timed(1.0, 8)}) == (1.0, "1.000 (0.900 to 1.100)")
    ratio, told = _cell({"usual": timed(1.0, 1), "one goes on": timed(2.0, 1)})
    assert ratio == pytest.approx(1.05) and told == "1.050 (1.00, 2.00)"
    every = {"usual": timed(1.0, 8), "one goes on": timed(1.2, 8), "all go on": timed(2.0, 8)}
    assert _cell(every)[1].endswith("(1.00, 1.20, 2.00)")
