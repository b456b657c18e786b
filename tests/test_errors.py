"""Names that were probably meant."""

from __future__ import annotations

import pytest

from mmbm_onnx.errors import closest, did_you_mean

KNOWN = ("Input", "logits", "mean")


@pytest.mark.parametrize(
    ("name", "found"),
    [("input", "Input"), ("LOGIT", "logits"), ("meen", "mean"), ("zzz", None), ("", None)],
)
def test_the_closest_name_is_found_in_any_case(name: str, found: str | None) -> None:
    assert closest(name, KNOWN) == found


def test_of_names_that_differ_in_case_the_first_is_told() -> None:
    assert closest("ba", ["Bar", "bar"]) == "Bar"
    assert closest("x", []) is None


def test_nothing_is_said_where_nothing_comes_close() -> None:
    assert did_you_mean("meen", KNOWN) == "; did you mean 'mean'?"
    assert did_you_mean("zzz", KNOWN) == ""
    assert did_you_mean("men", KNOWN, cutoff=0.99) == ""
