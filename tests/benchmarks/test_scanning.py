"""The benchmark of scans: its figures, and that the docs show those of the committed records."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.defence import cells
from benchmarks.scanning import networks, tables
from benchmarks.scanning.__main__ import BEGIN, END, PAGE

RESULTS = Path(__file__).parents[2] / "benchmarks/results/scanning.jsonl"


def record(attack: str, l1: float, margin: float = 0.2, **more: list[int]) -> dict:
    return {
        "network": f"n-{attack}-{l1}",
        "attack": attack,
        "targets": [] if attack == "clean" else [3],
        "scores": {"l2": 0.1, "l1": l1, "waves": None, "margin": margin},
        "seconds": 10.0,
        **more,
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


def test_tables_tell_whether_the_classes_suspected_are_the_attackers() -> None:
    found = [record("badnets", 2.0), record("sig", 2.0), record("clean", 0.1)]
    assert "Whether it is the attacker's was not measured." in tables.render(found)
    found += [
        record("badnets", 2.0, suspected=[3]),
        record("badnets", 2.0, suspected=[1, 3]),
        record("badnets", 2.0, suspected=[1]),
        record("badnets", 0.1, suspected=[]),
        record("badnets-all-to-all", 2.0, suspected=[3]),
        record("clean", 2.0, suspected=[3]),
    ]
    text = tables.render(found)
    assert "not measured" not in text
    assert (
        "Of the 5 that the verdict finds, not counting attacks toward every class, 3 have" in text
    )
    assert "2 name one of the attacker's, 1 before all others" in text


def test_a_record_has_the_classes_that_are_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.zeros((6, 2), np.float32), np.zeros(6, np.int64)
    trained = SimpleNamespace(model=None, clean=(x, y), triggered=(x, y, np.array([4, 2, 4])))
    result = SimpleNamespace(
        suspected_classes=(4, 1), report={"tests": [], "seconds": {}, "settings": {}}
    )
    monkeypatch.setattr(networks.victims, "make", lambda victim, store: trained)
    monkeypatch.setattr(networks.mmbm_onnx, "scan", lambda *given, **more: result)
    made = networks.scan(networks.all_of_them()[0], Path())
    assert made["suspected"] == [4, 1]
    assert made["targets"] == [2, 4]


def test_enough_networks_were_scanned() -> None:
    records = cells.read(RESULTS)
    clean = [record for record in records if record["attack"] == "clean"]
    assert len(clean) >= 20 and len(records) - len(clean) >= 40
    names = {record["network"] for record in records}
    assert len(names) == len(records)
    assert names <= {victim.label for victim in networks.all_of_them()}


def test_enough_networks_are_to_be_scanned() -> None:
    every = networks.all_of_them()
    clean = [victim for victim in every if victim.attack == "clean"]
    assert len(clean) >= 20 and len(every) - len(clean) >= 40
    assert len({victim.label for victim in every}) == len(every)


def test_the_docs_have_the_tables_of_the_records() -> None:
    records = cells.read(RESULTS)
    shown = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert shown == tables.for_readers(records)
    assert RESULTS.with_suffix(".md").read_text("utf-8") == tables.render(records)
