"""The search: the planted trigger is found, is small, and does what it is said to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from rows import CLASSES, SIDE, TARGET, rows_model, rows_samples

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.scanning.geometry import Gathered, Spread, Waves
from mmbm_onnx.scanning.look import geometries, look, sizes_by_class
from mmbm_onnx.scanning.noise import largest_margins
from mmbm_onnx.scanning.patterns import Search
from mmbm_onnx.scanning.settings import ScanSettings

SHAPE = (1, SIDE, SIDE)
NORMS = {
    "l2": Spread(SHAPE, 1.0),
    "l1": Gathered(SHAPE, 1.0, 0),
    "waves": Waves(SHAPE, 1.0, 0, (1, 2)),
}
SETTINGS = ScanSettings()


def classifier(*, backdoor: bool = True) -> Classifier:
    proto = rows_model(backdoor=backdoor)
    return Classifier(proto, find_interface(proto), ())


def search(settings: ScanSettings = SETTINGS, *, backdoor: bool = True, seed: int = 0) -> Search:
    x, y = rows_samples(100, seed=1)
    return Search(
        classifier(backdoor=backdoor),
        Points(torch.from_numpy(x)),
        torch.from_numpy(y),
        settings,
        torch.Generator().manual_seed(seed),
        low=0.0,
        high=1.0,
    )


@pytest.fixture(scope="module")
def found():
    return search().run(torch.arange(CLASSES), NORMS["l1"])


def test_the_targets_pattern_is_by_far_the_smallest_and_is_the_trigger(found) -> None:
    others = np.delete(found.sizes.numpy(), TARGET)
    assert found.sizes[TARGET] < 0.3 * others.min()
    pattern = found.patterns[TARGET, 0]
    assert divmod(int(pattern.abs().argmax()), SIDE) == (9, 9)
    assert pattern[9, 9] > 0
    assert pattern.abs().sum() < 1.5 * pattern[9, 9]


def test_without_a_backdoor_no_pattern_is_small() -> None:
    sizes = search(backdoor=False).run(torch.arange(CLASSES), NORMS["l1"]).sizes
    assert sizes[TARGET] > 0.6 * sizes.median()


@pytest.mark.parametrize("norm", NORMS)
def test_patterns_have_the_size_that_is_told_and_flip_as_many_as_they_are_to(norm: str) -> None:
    looking = search()
    found = looking.run(torch.arange(CLASSES), NORMS[norm])
    assert torch.allclose(NORMS[norm].fit(found.patterns, found.sizes), found.patterns, atol=1e-5)
    x, y = rows_samples(100, seed=2)
    flips = looking.flips(found, Points(torch.from_numpy(x)), torch.from_numpy(y))
    shares = np.array([one.share for one in flips])
    assert (abs(shares - SETTINGS.goal) < 0.3).all()
    # What is told of one is what the network does.
    one = flips[TARGET]
    attacked = (torch.from_numpy(x) + found.patterns[TARGET]).clamp(0, 1)
    decided = classifier().logits(attacked).argmax(1).numpy()
    expected = np.flatnonzero((decided == TARGET) & (y != TARGET))
    assert one.others == 90 and one.samples.tolist() == expected.tolist()


def test_a_higher_goal_needs_a_larger_pattern(found) -> None:
    more = search(replace(SETTINGS, goal=0.95)).run(torch.arange(CLASSES), NORMS["l1"])
    assert (more.sizes > found.sizes).float().mean() > 0.8


def test_of_several_starts_the_smallest_pattern_counts() -> None:
    one = search(replace(SETTINGS, starts=1)).run(torch.arange(CLASSES), NORMS["l1"])
    four = search(replace(SETTINGS, starts=4)).run(torch.arange(CLASSES), NORMS["l1"])
    assert (four.sizes <= one.sizes * 1.05).float().mean() > 0.8
    assert four.sizes.sum() < one.sizes.sum()


def test_the_same_seed_gives_the_same_patterns_and_another_others(found) -> None:
    again = search().run(torch.arange(CLASSES), NORMS["l1"])
    assert torch.equal(again.patterns, found.patterns)
    assert torch.equal(again.sizes, found.sizes)
    assert not torch.equal(
        search(seed=1).run(torch.arange(CLASSES), NORMS["l1"]).sizes, found.sizes
    )


def test_the_batch_size_does_not_change_what_is_found(found) -> None:
    small = search(replace(SETTINGS, batch_size=12)).run(torch.arange(CLASSES), NORMS["l1"])
    # Samples are drawn part by part, so that it changes which.
    assert torch.allclose(small.sizes, found.sizes, rtol=0.25)


def test_samples_of_the_class_itself_are_not_used() -> None:
    looking = search()
    targets = torch.full((500,), TARGET)
    picks = looking._others(targets)
    _, y = rows_samples(100, seed=1)
    assert (y[picks.numpy()] == TARGET).mean() < 0.01


def test_a_network_without_gradient_is_refused() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 10] x) => (float[N, 10] logits)
        { whole = Cast <to = 7> (x)  logits = Cast <to = 1> (whole) }
        """
    )
    x = torch.rand(30, 10)
    looking = Search(
        Classifier(proto, find_interface(proto), ()),
        Points(x),
        torch.arange(30) % 10,
        SETTINGS,
        torch.Generator().manual_seed(0),
        low=0.0,
        high=1.0,
    )
    with pytest.raises(ModelError, match="no gradient"):
        looking.run(torch.arange(10), Spread((10,), 1.0))


def _look(settings: ScanSettings, told: list | None = None):
    x, y = rows_samples(200, seed=1)
    points, decisions = Points(torch.from_numpy(x)), torch.from_numpy(y)
    return look(
        classifier(),
        points[:100],
        decisions[:100],
        (points[100:], decisions[100:]),
        CLASSES,
        geometries(SHAPE, 1.0, channels=0, along=(1, 2)),
        settings,
        torch.Generator().manual_seed(0),
        low=0.0,
        high=1.0,
        progress=None if told is None else lambda done, total: told.append((done, total)),
    )


def test_all_classes_are_looked_at_by_every_norm_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    settings = replace(SETTINGS, steps=5)
    found = _look(settings, told)
    assert {(one.norm, one.target) for one in found} == {
        (norm, target) for norm in NORMS for target in range(CLASSES)
    }
    assert told == [(step, 15) for step in range(1, 16)]


def test_of_many_classes_those_that_a_short_look_finds_exposed_get_a_full_one() -> None:
    found = _look(replace(SETTINGS, most_classes=3))
    sizes = sizes_by_class(found, "l1", CLASSES)
    assert np.isfinite(sizes).sum() == 3
    assert np.nanargmin(sizes) == TARGET


def test_inputs_without_an_order_have_no_waves() -> None:
    found = geometries((7,), 1.0, channels=None, along=())
    assert [geometry.norm for geometry in found] == ["l2", "l1"]


def test_noise_reaches_the_largest_margin_for_the_target() -> None:
    net = classifier()
    margins = largest_margins(
        net,
        Points(torch.zeros(1, *SHAPE)),
        CLASSES,
        SETTINGS,
        torch.Generator().manual_seed(0),
        low=0.0,
        high=1.0,
    )
    assert int(margins.argmax()) == TARGET
    # A white corner in a dark row is worth 8 * (4 - 0.5), a bright row 8.
    assert 28 < float(margins[TARGET]) <= 36.1
    assert (np.delete(margins.numpy(), TARGET) <= 8.01).all()
