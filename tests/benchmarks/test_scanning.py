"""The benchmark of scans: its figures, and that the docs show those of the committed records."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scanning import networks, tables
from benchmarks.scanning.__main__ import BEGIN, END, PAGE

RESULTS = Path(__file__).parents[2] / "benchmarks/results/scanning.jsonl"


def record(attack: str, l1: float, margin: float = 0.2) -> dict:
    return {
        "network": f"n-{attack}-{l1}",
        "attack": attack,
        "targets": [] if attack == "clean" else [3],
        "scores": {"l2": 0.1, "l1": l1, "waves": None, "margin": margin},
        "seconds": 10.0,
    }


def test_the_area_under_the_curve_is_a_share_of_pairs_in_order() -> None:
    assert tables.auc([3, 4], [1, 2]) == 1
    assert tables.auc([1, 4], [2, 3]) == 0.5
    assert tables.auc([2], [2]) == 0.5


def test_tables_tell_what_was_found_and_what_was_falsely_suspected() -> None:
    text = tables.render(
        [
            record("badnets", 2.0, margin=3.0),
            record("badnets", 1.5),
            record("badnets-one-to-one", 0.2),
            record("clean", 0.3),
            record("clean", 1.9),
        ]
    )
    assert "3 networks with a backdoor, 2 without" in text
    assert "| badnets | 2 | 2 | 0 | 2 | 0 | 1 |" in text
    assert "| badnets-one-to-one | 1 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| **the verdict**: spread or gathered | 0.50 | 0.75 | 67 | 50 |" in text


def test_enough_networks_are_scanned() -> None:
    every = networks.all_of_them()
    clean = [victim for victim in every if victim.attack == "clean"]
    assert len(clean) >= 20 and len(every) - len(clean) >= 40
    assert len({victim.label for victim in every}) == len(every)


def test_the_docs_have_the_tables_of_the_records() -> None:
    records = networks.read(RESULTS)
    shown = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert shown == tables.for_readers(records)
    assert RESULTS.with_suffix(".md").read_text("utf-8") == tables.render(records)
