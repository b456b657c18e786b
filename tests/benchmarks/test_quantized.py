"""What quantizing changes, measured on a model with a backdoor and told on the page."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quadrants import CLASSES, TARGET, draw, planted_images, with_trigger

from benchmarks.defence.victims import Trained, Victim
from benchmarks.quantized.measured import BATCHES, DETECTORS, PLAIN, Row, measure
from benchmarks.quantized.tables import render


def fed(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 8, 8)`` uint8 as the model takes them, and their labels."""
    return images[:, None].astype(np.float32) / 255, labels


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    folder = tmp_path_factory.mktemp("victim")
    onnx.save(planted_images(), folder / "model.onnx")
    images, truth = draw(200, 1)
    others = truth != TARGET
    trained = Trained(
        victim=Victim("fashion", "plain", "badnets", 0),
        folder=folder,
        model=folder / "model.onnx",
        classes=CLASSES,
        clean=fed(*draw(120, 0)),
        test=fed(images, truth),
        triggered=(
            *fed(with_trigger(images[others]), truth[others]),
            np.full(int(others.sum()), TARGET),
        ),
        trained={},
    )
    return measure(trained, "planted", clean=100, seconds=0.1, detectors=True, epochs=20)


def test_every_graph_is_measured_in_the_light_of_the_original(row: Row) -> None:
    assert list(row.figures) == [*PLAIN, *DETECTORS] and not row.refused
    original, hardened = row.figures["original"], row.figures["hardened"]
    assert original["asr"] > 95 and original["der"] == 50.0
    assert hardened["asr"] < original["asr"]
    for graph in PLAIN:
        loss = max(0.0, original["acc"] - row.figures[graph]["acc"])
        gain = max(0.0, original["asr"] - row.figures[graph]["asr"])
        assert row.figures[graph]["der"] == pytest.approx(50 + (gain - loss) / 2, abs=0.01)
    for graph in DETECTORS:
        assert row.figures[graph]["tpr"] > 50 and row.figures[graph]["fpr"] < 10
    # In 8 bits answers are nearly those in float: what is measured is the same network.
    for few in ("original", "hardened"):
        assert abs(row.figures[f"{few} int8"]["acc"] - row.figures[few]["acc"]) < 3


def test_times_are_in_that_of_the_original(row: Row) -> None:
    assert set(row.ratios) == {(g, size) for g in (*PLAIN, *DETECTORS) for size in BATCHES}
    assert all(row.ratios["original", size] == 1 for size in BATCHES)
    assert all(value > 0 for value in row.ratios.values())


def test_the_page_tells_what_was_measured_and_what_was_not_made() -> None:
    figures = {g: {"acc": 90.0, "asr": 5.04, "der": 95.0} for g in PLAIN}
    figures["detector"] = {"acc": 91.0, "asr": 0.0, "der": 99.0, "fpr": 0.5, "tpr": 99.96}
    ratios = {(g, size): 1.0 + size / 100 for g in figures for size in BATCHES}
    found = Row("some network", figures, ratios, {"detector, int8": "too few"})
    small = Row("small one", figures, ratios, {})
    text = render(found, 20, [small], 500)
    assert "| detector | 91.0 | 0.0 | 99.0 | 0.5 | 100.0 | 1.01 | 1.08 |" in text
    assert "| hardened | 90.0 | 5.0 | 95.0 | - | - | 1.01 | 1.08 |" in text
    assert "No detector, int8: too few." in text
    assert f"| small one {'| 90.0 / 5.0 ' * len(PLAIN)}|" in text
    assert "in 20 passes" in text and "With 500 clean samples" in text
