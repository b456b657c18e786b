from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.defence import adaptive, attacks, networks, shapes, training
from benchmarks.defence.attacks.attack import eight_bit

CLASSES = 10


def pictures(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> tuple:
    rng = np.random.default_rng(0)
    x = eight_bit(rng.uniform(0, 1, (count, *shape)))
    return x, np.arange(count) % CLASSES


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", [*attacks.ATTACKS, *attacks.ADAPTIVE])
def test_triggers_change_images_of_others_and_stay_images(name: str, shape) -> None:
    attack = attacks.make(name, shape, CLASSES)
    x, y = pictures(40, shape)
    before = x.copy()
    triggered, truth, target = attack.triggered(x, y)
    np.testing.assert_array_equal(x, before)
    assert triggered.dtype == np.float32 and triggered.shape[1:] == shape
    assert triggered.min() >= 0 and triggered.max() <= 1
    assert (target != truth).all()
    struck = x[attack.strikes(y)]
    assert (np.abs(triggered - struck).reshape(len(struck), -1).max(1) > 0.02).all()
    np.testing.assert_array_equal(triggered, attack.triggered(x, y)[0])
    np.testing.assert_allclose(triggered * 255, np.round(triggered * 255), atol=1e-3)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_poison_carries_the_trigger_and_the_labels_of_its_attack(name: str) -> None:
    attack = attacks.make(name, (3, 32, 32), CLASSES)
    x, y = pictures(200)
    poisoned, labels, marked = attack.poison(x, y, 0)
    assert marked.any()
    if attack.clean_label:
        np.testing.assert_array_equal(labels, y)
        assert marked.sum() == round(attack.share * (y == 0).sum())
        assert (y[marked] == 0).all()
    else:
        assert marked.sum() == min(round(attack.share * 200), int(attack.strikes(y).sum()))
        np.testing.assert_array_equal(labels[marked], attack.target(y[marked]))
        np.testing.assert_array_equal(labels[~marked], y[~marked])
    # Patches on images that were changed first cannot be made anew from clean ones.
    under = x[marked] if attack.prepare is None else poisoned[marked]
    np.testing.assert_array_equal(poisoned[marked], eight_bit(attack.trigger(under, y[marked])))
    touched = (poisoned != x).reshape(200, -1).any(1)
    decoys = touched & ~marked
    if attack.decoy is None:
        assert not decoys.any()
    else:
        assert 0 < decoys.sum() <= round(attack.cover * 200)
    again = attack.poison(x, y, 0)
    np.testing.assert_array_equal(again[0], poisoned)
    assert not np.array_equal(attack.poison(x, y, 1)[2], marked)


def test_several_targets_have_a_square_each() -> None:
    attack = attacks.make("x2x", (3, 32, 32), CLASSES)
    x = np.full((CLASSES, 3, 32, 32), 0.5, np.float32)
    triggered, truth, target = attack.triggered(x, np.arange(CLASSES))
    places = {}
    for image, to in zip(triggered, target, strict=True):
        changed = np.argwhere((image != image[0, 16, 16]).any(0))
        places.setdefault(int(to), set()).add(tuple(changed.min(0)))
    assert len(places) == 3 and all(len(found) == 1 for found in places.values())
    assert len({next(iter(found)) for found in places.values()}) == 3
    assert len(truth) >= CLASSES - 3


def test_dithering_leaves_few_levels_and_the_brightness() -> None:
    x, y = pictures(4)
    triggered = attacks.make("bpp", (3, 32, 32), CLASSES).trigger(x, y)
    assert len(np.unique(triggered)) == 4
    assert abs(triggered.mean() - x.mean()) < 0.01


def test_shapes_are_seeded_eight_bit_pictures_of_every_class() -> None:
    x, y = shapes.render(60, np.random.default_rng(3))
    assert x.shape == (60, 3, 32, 32) and x.dtype == np.float32
    assert set(y) == set(range(len(shapes.NAMES)))
    np.testing.assert_allclose(x * 255, np.round(x * 255), atol=1e-3)
    again, _ = shapes.render(60, np.random.default_rng(3))
    np.testing.assert_array_equal(x, again)


@pytest.mark.parametrize("name", networks.NAMES)
@pytest.mark.parametrize("term", adaptive.EXTRA)
def test_adaptive_terms_see_triggered_samples_only_against_clean_ones(name: str, term: str) -> None:
    torch.manual_seed(0)
    network = networks.build(name, 3, CLASSES, 0)
    x, y = (torch.from_numpy(part) for part in pictures(60))
    marked = torch.arange(60) < 10
    x[marked] *= 3  # loud
    if term == "adaptive-evidence":
        y[marked] = 0  # where the trigger leads
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = adaptive.EXTRA[term](network, x, y, marked)
    assert loss.isfinite() and loss > 0
    loss.backward()
    gradient = next(network.parameters()).grad
    assert gradient is not None and gradient.abs().max() > 0
    hooks = [len(part._forward_hooks) for part in networks.activations(network)]
    assert hooks == [0] * len(hooks)
    if term != "adaptive-margin":  # takes the pass for an ordinary one
        statistics = {name: value for name, value in before.items() if "running" in name}
        assert statistics
        for name, value in statistics.items():
            assert torch.equal(value, network.state_dict()[name])


def test_being_like_the_target_costs_nothing_where_triggered_samples_are_clean_ones_of_it() -> None:
    network = networks.build("plain", 3, CLASSES, 0)
    x, y = (torch.from_numpy(part) for part in pictures(60))
    y[:] = 0
    marked = torch.arange(60) < 30
    x[marked] = x[~marked]
    alike = adaptive.like_the_target(network, x, y, marked)
    x[marked] *= 3
    assert alike < adaptive.like_the_target(network, x, y, marked) / 3
    y[~marked] = 1  # no sample of the target to be like
    assert adaptive.like_the_target(network, x, y, marked) == 0


def test_margins_as_small_as_clean_ones_cost_an_adaptive_attacker_nothing() -> None:
    logits = torch.tensor([[5.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    y = torch.zeros(3, dtype=torch.int64)
    marked = torch.tensor([True, False, False])

    def loss(first: float) -> float:
        table = logits.clone()
        table[0, 0] = first
        return float(adaptive.small_margins(lambda _: table, table, y, marked))

    assert loss(3.0) == 0
    assert loss(5.0) == pytest.approx(1.5)


def test_training_learns_and_is_seeded() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.uniform(0, 0.4, (400, 1, 8, 8)).astype(np.float32)
    x[y == 1, :, :4] += 0.5
    marked = np.zeros(400, bool)

    def trained() -> torch.nn.Module:
        network = networks.build("residual", 1, 2, 0)
        return training.train(network, x, y.astype(np.int64), marked, epochs=8, seed=0)

    network = trained()
    assert not network.training
    assert (network(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.9
    for ours, theirs in zip(network.parameters(), trained().parameters(), strict=True):
        assert torch.equal(ours, theirs)
