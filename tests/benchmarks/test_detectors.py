"""Tables of the detector's forms."""

from __future__ import annotations

from typing import Any

from benchmarks.detectors.forms import FORMS, FULL
from benchmarks.detectors.tables import render


def figures(tpr: float | None, der: float | None, **more: Any) -> dict[str, Any]:
    return {"acc": 90.0, "asr": 3.0, "ra": 80.0, "fpr": 0.5, "tpr": tpr, "der": der, **more}


def record(name: str, attack: str, *, original: float = 91.0) -> dict[str, Any]:
    known = None if attack == "clean" else 1.0
    tpr, der = (None, None) if known is None else (98.0, 95.0)
    return {
        "victim": name,
        "attack": attack,
        "original": {"acc": original, "asr": 99.0},
        FULL: figures(tpr, der),
        "two stages": figures(tpr and tpr - 4, der and der - 2, odd=4.0),
        "one stage, int8": figures(tpr, der, poor=False),
        "two stages, int8": figures(tpr, der, poor=False, odd=4.0),
    }


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_losses_are_against_one_stage_on_the_same_victims() -> None:
    found = [record("a", "badnets"), record("b", "wanet"), record("c", "clean", original=92.5)]
    found[1]["two stages"] |= {"der": 95.0, "tpr": 98.0, "odd": 6.0}
    text = render(found)
    assert row(text, "two stages")[1:9] == ["3", "3.0", "94.0", "1.0", "2.0", "96.0", "2.0", "4.0"]
    assert row(text, "two stages")[9:] == ["1.5", "2.5", "0.5", "0.5", "0.5", "4.7"]
    assert row(text, FULL)[-1] == "all"


def test_attackers_who_know_the_method_and_refused_ones_are_left_out() -> None:
    found = [record("a", "badnets"), record("b", "adaptive-quiet"), record("c", "wanet")]
    found[1][FULL] |= {"asr": 100.0}
    for name in FORMS:
        if name.endswith("int8"):
            found[2][name] = {"refused": "too few"}
    text = render(found)
    assert row(text, FULL)[1:3] == ["3", "3.0"]
    assert row(text, "one stage, int8")[1] == "2"
    assert text.count("- c: too few") == 1


def test_a_kind_that_none_makes_has_a_row_of_its_own() -> None:
    found = [record("a", "badnets")]
    for name in FORMS:
        if name.endswith("int8"):
            found[0][name] = {"refused": "too few"}
    assert row(render(found), "one stage, int8")[1] == "0"
