from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import margins
from mmbm_onnx.learning.settings import settings_for
from mmbm_onnx.learning.universal import UniversalAttackers

UNIT = 40.0  # logits
SETTINGS = replace(settings_for("mmac-universal"), sizes=(0.1, 0.4), batch_size=20)


def make(planted, clean, seed: int = 0) -> UniversalAttackers:
    x = Points(torch.from_numpy(clean.x))
    generator = torch.Generator().manual_seed(seed)
    decisions = torch.from_numpy(clean.y)
    return UniversalAttackers(planted, x, decisions, 4, SETTINGS, generator, UNIT)


@pytest.fixture
def found(planted, clean) -> UniversalAttackers:
    attackers = make(planted, clean)
    for _ in range(5):
        attackers.renew({})
    return attackers


def test_there_is_one_pattern_per_class_and_size_no_larger_than_that(found, clean) -> None:
    assert found.targets.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    unit = float(clean.x.max() - clean.x.min()) * 5**0.5
    norms = found.patterns.norm(dim=1)
    assert (norms[:4] <= 0.1 * unit * 1.0001).all()
    assert (norms[4:] <= 0.4 * unit * 1.0001).all()
    assert (norms[4:] > 0.3 * unit).all()


def test_the_pattern_of_the_target_finds_the_trigger(found) -> None:
    """Input 4 is the planted trigger; with the climb's sign broken it is not found."""
    assert int(found.patterns[4].abs().argmax()) == 4
    assert found.patterns[4, 4] > 0


def test_patterns_drive_clean_samples_of_other_classes_to_their_class(
    planted, clean, found
) -> None:
    samples = torch.arange(len(clean.x))
    attacks, targets = found.batch(samples)
    x = attacks.values
    assert x.shape == clean.x.shape
    assert float(x.min()) >= clean.x.min() and float(x.max()) <= clean.x.max()
    assert (targets != torch.from_numpy(clean.y)).all()
    reached = margins(planted.logits(x), targets).mean()
    before = margins(planted.logits(torch.from_numpy(clean.x)), targets).mean()
    assert reached > before + 0.5


def test_patterns_attack_the_bounded_network(planted, clean) -> None:
    """Where a bound silences the planted unit, nothing is to be gained from it."""
    attackers = make(planted, clean)
    bound = torch.tensor([9.0, 9.0, 9.0, 9.0, 1e-3])
    for _ in range(5):
        attackers.renew({"active": bound})
    assert int(attackers.patterns[4].abs().argmax()) != 4


def test_many_classes_take_turns_until_all_have_had_theirs(planted, clean) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = Points(torch.from_numpy(clean.x)), torch.from_numpy(clean.y)
    attackers = UniversalAttackers(planted, x, y, 50, SETTINGS, generator, UNIT)
    seen: set[int] = set()
    for left in (30, 10, 0):
        attackers._draw()
        assert len(attackers.targets) == 40  # 20 classes, 2 sizes
        seen |= set(attackers.targets.tolist())
        assert attackers.missed == 50 - len(seen) == left


@pytest.mark.parametrize(("focus", "low", "high"), [(0.1, 0.6, 0.9), (None, 0.2, 0.4)])
def test_the_class_that_is_reached_furthest_is_attacked_most(
    planted, clean, focus, low, high
) -> None:
    x, decisions = Points(torch.from_numpy(clean.x)), torch.from_numpy(clean.y)
    attackers = UniversalAttackers(
        planted,
        x,
        decisions,
        4,
        replace(SETTINGS, focus=focus),
        torch.Generator().manual_seed(0),
        UNIT,
    )
    attackers.renew({})
    others = torch.nonzero(decisions != 2).squeeze(1).repeat(5)[:400]
    for _ in range(30):
        _, targets = attackers.batch(others)
        attackers.reached(targets, torch.where(targets == 2, 0.8, 0.3))
    _, targets = attackers.batch(others)
    shares = torch.bincount(targets, minlength=4) / len(targets)
    assert low < float(shares[2]) < high
    assert (shares > 0.02).all()
    # Not for ever: where another class is reached, attention follows.
    for _ in range(60):
        _, targets = attackers.batch(others)
        attackers.reached(targets, torch.where(targets == 1, 0.8, 0.0))
    _, targets = attackers.batch(torch.nonzero(decisions != 1).squeeze(1).repeat(5)[:400])
    assert low < float(torch.bincount(targets, minlength=4)[1] / len(targets)) < high


def test_samples_of_the_focused_class_attack_all_others_alike(planted, clean) -> None:
    attackers = make(planted, clean)
    attackers.renew({})
    decisions = torch.from_numpy(clean.y)
    for _ in range(30):
        _, targets = attackers.batch(torch.arange(len(clean.x)))
        attackers.reached(targets, torch.where(targets == 2, 5.0, 0.3))
    own = torch.nonzero(decisions == 2).squeeze(1).repeat(50)[:900]
    _, targets = attackers.batch(own)
    shares = torch.bincount(targets, minlength=4) / len(targets)
    assert shares[2] == 0
    assert ((shares[[0, 1, 3]] - 1 / 3).abs() < 0.06).all()


def test_margins_that_are_not_finite_do_not_stick(planted, clean) -> None:
    attackers = make(planted, clean)
    attackers.renew({})
    for value in (float("nan"), -float("inf"), float("inf")):
        _, targets = attackers.batch(torch.arange(len(clean.x)))
        attackers.reached(targets, torch.full((len(targets),), value))
    assert attackers.batch(torch.arange(len(clean.x)))[1].shape == (len(clean.x),)


@pytest.mark.parametrize(("unit", "moves"), [(UNIT, True), (-1e6, False)])
def test_a_margin_that_suffices_pulls_no_further(planted, clean, unit: float, moves: bool) -> None:
    x, y = Points(torch.from_numpy(clean.x)), torch.from_numpy(clean.y)
    generator = torch.Generator().manual_seed(0)
    attackers = UniversalAttackers(planted, x, y, 4, SETTINGS, generator, unit)
    attackers._draw()
    before = attackers.patterns.clone()
    attackers.renew({})
    assert torch.allclose(attackers.patterns, before, atol=1e-6) != moves
