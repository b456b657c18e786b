"""Gates: limits are inclusive, what was not measured fails."""

from __future__ import annotations

import json

import pytest

from mmbm_onnx.evaluation.gates import at_least, at_most, holds


def test_a_drop_equal_to_the_limit_passes_despite_rounding() -> None:
    assert 0.90 - 0.88 > 0.02
    assert at_most("drop", 0.90 - 0.88, 0.02).passed
    assert at_least("agreement", 1 - 0.02, 0.98).passed


def test_a_figure_beyond_its_limit_fails() -> None:
    assert not at_most("drop", 0.0201, 0.02).passed
    assert not at_least("agreement", 0.9799, 0.98).passed
    assert at_most("drop", -0.1, 0.02).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_figure_that_is_not_finite_fails_and_stays_out_of_json(value: float) -> None:
    for gate in (at_most("a", value, 0.1), at_least("a", value, 0.1)):
        assert not gate.passed
        assert json.loads(json.dumps(gate.to_dict(), allow_nan=False))["value"] is None


def test_facts() -> None:
    assert holds("valid", True).passed
    assert not holds("valid", False, "why").passed
