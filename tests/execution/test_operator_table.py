"""The page of operators says what the registry holds."""

from __future__ import annotations

from pathlib import Path

from mmbm_onnx.execution.operator_table import render
from mmbm_onnx.execution.registry import registered

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == render(), "run make pages"


def test_every_operator_has_its_oldest_opset_and_all_its_limits() -> None:
    page = render()
    for entry in registered():
        (line,) = [row for row in page.splitlines() if row.startswith(f"| {entry.name} |")]
        _, _, opset, limits, _ = (cell.strip() for cell in line.split("|"))
        assert int(opset) <= entry.since
        assert entry.limits in limits
    assert "| Relu | 1 |" in page
    assert "Scan" in page.split("## Not executed")[1]
    assert "Attention" in page.split("## By their body")[1].split("##")[0]
