from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.learning.fit import learn_bounds
from mmbm_onnx.learning.margin import margins, max_margin_inputs
from mmbm_onnx.learning.settings import METHODS, settings_for
from mmbm_onnx.types import Progress, Samples


def bounds_of(learned) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in learned.bounds.items()}


def quick(method: str, **changes: object):
    return replace(settings_for(method, epochs=40, batch_size=40), **changes)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_stop_the_planted_backdoor_and_keep_clean_decisions(
    planted, sites, clean, triggered, method: str
) -> None:
    settings = quick(method, epochs=150 if method == "mmbm" else 40)
    attacked = planted.logits(triggered).argmax(1)
    assert (attacked == 0).float().mean() > 0.95
    learned = learn_bounds(planted, clean, sites, settings)
    bounds = bounds_of(learned)
    kept = planted.logits(torch.from_numpy(clean.x), bounds).argmax(1).numpy() == clean.y
    after = planted.logits(triggered, bounds).argmax(1)
    assert kept.mean() >= 0.95
    assert (after == 0).float().mean() < 0.1


def test_penalty_limits_the_margin_that_any_input_reaches(planted, sites, clean) -> None:
    """With the penalty's sign or weight broken, this fails."""
    inputs, labels = max_margin_inputs(
        planted,
        (5,),
        4,
        settings_for("mmac"),
        per_class=10,
        low=0.0,
        high=1.0,
        generator=torch.Generator().manual_seed(0),
    )

    def reached(weight: float) -> float:
        settings = quick("mmac", weight=weight, weight_after=10**6, start="maximum")
        bounds = bounds_of(learn_bounds(planted, clean, sites, settings))
        return float(margins(planted.logits(inputs, bounds), labels).mean())

    free = float(margins(planted.logits(inputs), labels).mean())
    assert reached(1.0) < reached(0.0) - 0.1 < free


def test_fidelity_lifts_bounds_that_start_too_low(planted, sites, clean) -> None:
    """With fidelity's sign broken, this fails."""
    x = torch.from_numpy(clean.x)
    reference = planted.logits(x)

    def error(epochs: int) -> float:
        settings = quick("mmac", weight=0.0, weight_after=10**6, epochs=epochs, start_value=-0.5)
        bounds = bounds_of(learn_bounds(planted, clean, sites, settings))
        return float((planted.logits(x, bounds) - reference).square().mean())

    assert error(60) < 0.2 * error(1)


@pytest.mark.parametrize(("accuracy", "rises"), [(0.0, True), (1.1, False)])
def test_weight_rises_while_accuracy_holds_and_falls_when_not(
    planted, sites, clean, accuracy: float, rises: bool
) -> None:
    settings = quick("mmac", accuracy=accuracy, weight_after=2, epochs=8)
    weights = [entry["weight"] for entry in learn_bounds(planted, clean, sites, settings).history]
    assert weights[:4] == [0.1] * 4
    steps = np.diff(weights[4:])
    assert (steps > 0).all() if rises else (steps < 0).all()


def test_mmbm_makes_bounds_smaller_than_their_start(planted, sites, clean) -> None:
    small = learn_bounds(planted, clean, sites, quick("mmbm", epochs=30))
    start = learn_bounds(planted, clean, sites, quick("mmbm", epochs=1, learning_rate=1e-9))
    assert np.linalg.norm(small.bounds["active"]) < 0.9 * np.linalg.norm(start.bounds["active"])


@pytest.mark.parametrize("method", ["mmac-universal", "mmac"])
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(
    planted, sites, clean, method: str
) -> None:
    def learn(seed: int) -> bytes:
        found = learn_bounds(planted, clean, sites, quick(method, epochs=5), seed=seed)
        return found.bounds["active"].tobytes()

    assert learn(3) == learn(3)
    assert learn(3) != learn(4)


def test_granularity_tensor_gives_one_bound_per_site(planted, sites, clean) -> None:
    learned = learn_bounds(planted, clean, sites, quick("mmac", epochs=3), granularity="tensor")
    assert learned.bounds["active"].shape == ()


def test_labels_choose_which_samples_count(planted, sites, clean) -> None:
    y = clean.y.copy()
    y[:30] = (y[:30] + 1) % 4
    learned = learn_bounds(planted, Samples(clean.x, y), sites, quick("mmac", epochs=1))
    assert learned.samples == 90
    unlabelled = learn_bounds(planted, Samples(clean.x), sites, quick("mmac", epochs=1))
    assert unlabelled.samples == 120


def test_all_wrong_labels_are_refused(planted, sites, clean) -> None:
    wrong = Samples(clean.x, (clean.y + 1) % 4)
    with pytest.raises(DataError, match="every clean sample wrong"):
        learn_bounds(planted, wrong, sites, quick("mmac", epochs=1))


def test_progress_tells_every_step_and_the_last_epochs_figures(planted, sites, clean) -> None:
    events: list[Progress] = []
    learn_bounds(planted, clean, sites, quick("mmac", epochs=2), progress=events.append)
    learning = [event for event in events if event.phase == "learn"]
    steps = [(event.step, event.total) for event in learning]
    assert steps == [(step, 6) for step in range(1, 7)]  # 120 samples, 40 at a time
    assert not learning[0].values
    assert {"loss", "accuracy", "penalty", "weight"} <= set(learning[-1].values)


def test_accuracy_that_never_held_is_told(planted, sites, clean) -> None:
    learned = learn_bounds(planted, clean, sites, quick("mmac", epochs=3, accuracy=1.1))
    assert any("no epoch kept" in warning for warning in learned.warnings)
    held = learn_bounds(planted, clean, sites, quick("mmac", epochs=3, accuracy=0.0))
    assert held.warnings == ()


def test_nothing_the_caller_owns_is_changed(planted, sites, clean) -> None:
    x, y = clean.x.copy(), clean.y.copy()
    learn_bounds(planted, clean, sites, quick("mmac", epochs=2))
    assert np.array_equal(clean.x, x) and np.array_equal(clean.y, y)


def test_reference_recipe_has_the_published_constants() -> None:
    found = settings_for("mmac-reference")
    assert (found.start, found.start_value, found.learning_rate) == ("constant", 1.0, 0.1)
    assert (found.epochs, found.batch_size, found.weight) == (300, 200, 0.002)
    assert (found.weight_factor, found.weight_every, found.weight_after) == (1.2, 10, 30)
    assert (found.accuracy, found.inputs_per_class, found.input_steps) == (0.95, 50, 300)
    assert (found.attackers, found.attack_bounded, found.keep) == ("noise", False, "last")
    assert (found.input_rate, found.renewed_every, found.relative) == (0.01, 100, False)


def test_unknown_method_and_bad_values_are_refused() -> None:
    with pytest.raises(OptionError, match="mmac-reference"):
        settings_for("clip")
    with pytest.raises(OptionError, match="epochs"):
        settings_for("mmac", epochs=0)


def test_large_inputs_lower_the_batch_size_small_ones_do_not() -> None:
    settings = settings_for("mmac-universal")
    assert settings.for_inputs(28 * 28) == settings
    assert settings.for_inputs(3 * 224 * 224).batch_size == 9
    assert settings.for_inputs(10**9).batch_size == 8


def test_the_epoch_of_least_penalty_among_those_that_held_accuracy_is_kept(
    planted, sites, clean
) -> None:
    settings = quick("mmac-universal", weight_after=2, epochs=30)
    whole = learn_bounds(planted, clean, sites, settings)
    held = [
        (entry["penalty"], epoch)
        for epoch, entry in enumerate(whole.history)
        if epoch > settings.weight_after and entry["accuracy"] >= settings.accuracy
    ]
    _, best = min(held)
    assert best < settings.epochs - 1, "the last epoch is the best: this tests nothing"
    until_best = learn_bounds(
        planted, clean, sites, replace(settings, epochs=best + 1, keep="last")
    )
    np.testing.assert_array_equal(whole.bounds["active"], until_best.bounds["active"])
