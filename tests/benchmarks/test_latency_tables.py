"""Tables of times at inference."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.latency.__main__ import _cell, mean, render


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


def test_a_page_tells_the_machine_and_the_mean_with_and_without_the_tiny_networks() -> None:
    rows = [
        {"network": network, "graph": "hardened", "threads": threads, "batch_size": 1,
         "traffic": "usual", "ratio": ratio, "ratio_low": ratio, "ratio_high": ratio}
        for network, ratios in {"resnet18": (1.0, 1.1), "victim-plain": (1.3, 1.4)}.items()
        for threads, ratio in zip((1, 2), ratios, strict=True)
    ]  # fmt: skip
    kind = {"processor": "some processor", "processors": 2, "system": "Linux x86_64",
            "instructions": ["avx2", "avx512_vnni"]}  # fmt: skip
    page = render({
        "machine": kind, "libraries": {"onnxruntime": "1.0"}, "date": "2026-01-02",
        "provider": "cpu", "batches": 32, "command": "python -m this", "rows": rows,
    })  # fmt: skip
    assert "some processor, 2 processors, Linux x86_64 (avx2, avx512_vnni); 2026-01-02" in page
    assert "ONNX Runtime 1.0 on cpu" in page and "`python -m this`" in page
    assert "| network | 1 thread, batch 1 | 2 threads, batch 1 |" in page
    assert "| resnet18 | 1.000 (1.000 to 1.000) | 1.100 (1.100 to 1.100) |" in page
    told = "Mean 1.200, worst 1.400. Without the small victims, mean 1.050, worst 1.100."
    assert page.endswith(told + "\n")
    assert page.count("## ") == 1  # graphs that were not timed have no table
