from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.fit import _Loop, learn_bounds
from mmbm_onnx.learning.judge import Judge, Mistakes
from mmbm_onnx.learning.margin import margins, max_margin_inputs
from mmbm_onnx.learning.settings import METHODS, settings_for
from mmbm_onnx.learning.statistics import activation_statistics
from mmbm_onnx.learning.universal import UniversalAttackers
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
        Points(torch.zeros(1, 5)),
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
    settings = quick("mmac", accuracy=accuracy, fidelity=None, weight_after=2, epochs=8)
    weights = [entry["weight"] for entry in learn_bounds(planted, clean, sites, settings).history]
    assert weights[:4] == [settings.weight] * 4
    steps = np.diff(weights[4:])
    assert (steps > 0).all() if rises else (steps < 0).all()


def test_mmbm_makes_bounds_smaller_than_their_start(planted, sites, clean) -> None:
    settings = quick("mmbm", epochs=30, tightened_fidelity=None)
    small = learn_bounds(planted, clean, sites, settings)
    start = learn_bounds(planted, clean, sites, replace(settings, epochs=1, learning_rate=1e-9))
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
    assert learning[0].values == {"epoch": 1, "epochs": 2}
    assert [event.values["epoch"] for event in learning] == [1, 1, 1, 2, 2, 2]
    assert {"loss", "accuracy", "penalty", "weight"} <= set(learning[-1].values)


def test_accuracy_that_never_held_is_told(planted, sites, clean) -> None:
    learned = learn_bounds(planted, clean, sites, quick("mmac", epochs=3, accuracy=1.1))
    assert any("no bounds kept" in warning for warning in learned.warnings)
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


def test_fewer_epochs_move_the_weight_earlier_unless_it_is_said_when_or_published() -> None:
    assert settings_for("mmac-universal").weight_after == 20
    assert settings_for("mmac-universal", epochs=30).weight_after == 10
    assert settings_for("mmac-universal", epochs=30, weight_after=7).weight_after == 7
    assert settings_for("mmac", epochs=50).weight_after == 2
    assert settings_for("mmac-reference", epochs=20).weight_after == 30


def test_large_inputs_lower_the_batch_size_small_ones_do_not() -> None:
    settings = settings_for("mmac-universal")
    assert settings.for_inputs(28 * 28) == settings
    assert settings.for_inputs(3 * 224 * 224).batch_size == 9
    assert settings.for_inputs(10**9).batch_size == 8


def test_the_last_epoch_that_held_accuracy_is_kept(planted, sites, clean, monkeypatch) -> None:
    steady = quick(
        "mmac-universal",
        weight_factor=1.0,
        weight_after=5,
        final_rate=1.0,
        tightened_fidelity=None,
    )
    until = learn_bounds(planted, clean, sites, replace(steady, epochs=13, keep="last"))

    accuracies = [1.0] * 13 + [0.5] * 5  # held for thirteen epochs, then lost
    measured = iter(accuracies)
    monkeypatch.setattr(_Loop, "_judged", lambda self, accuracy: next(measured))
    whole = learn_bounds(planted, clean, sites, replace(steady, epochs=18))
    assert [entry["accuracy"] for entry in whole.history] == accuracies
    np.testing.assert_array_equal(whole.bounds["active"], until.bounds["active"])

    measured = iter(accuracies)
    last = learn_bounds(planted, clean, sites, replace(steady, epochs=18, keep="last"))
    assert not np.array_equal(last.bounds["active"], until.bounds["active"])


def test_common_factor_tightens_as_far_as_clean_samples_bear(planted, sites, clean) -> None:
    loose = quick("mmac-universal", tightened_fidelity=None)
    tight = replace(loose, tightened_fidelity=0.2, tightened_accuracy=0.9)
    before = learn_bounds(planted, clean, sites, loose).bounds["active"]
    after = learn_bounds(planted, clean, sites, tight)
    factors = after.bounds["active"] / before
    assert factors.max() < 0.96
    np.testing.assert_allclose(factors[factors > 0.01], factors.max(), rtol=1e-3)
    x = torch.from_numpy(clean.x)
    reference = planted.logits(x)
    decisions = reference.argmax(1)

    def measured(factor: float) -> tuple[float, float]:
        bounds = {n: factor * b for n, b in bounds_of(after).items()}
        logits = planted.logits(x, bounds)
        error = float((logits - reference).square().mean() / reference.var())
        return float((logits.argmax(1) == decisions).float().mean()), error

    accuracy, fidelity = measured(1.0)
    assert accuracy >= 0.9 and fidelity <= 0.2001
    accuracy, fidelity = measured(0.95)
    assert accuracy < 0.9 or fidelity > 0.1999


@pytest.mark.parametrize(
    ("fidelity", "accuracy", "expected"),
    [(1e9, 0.9, 1.0), (1e9, 0.99, 0.5), (1e9, 1.01, -0.5), (1e9, 1.5, -3.0), (1e-9, 0.9, -3.0)],
)
def test_weight_moves_by_the_room_left(
    planted, sites, clean, monkeypatch, fidelity: float, accuracy: float, expected: float
) -> None:
    measure = _Loop._measure
    monkeypatch.setattr(_Loop, "_measure", lambda self: (1.0, measure(self)[1]))
    settings = quick(
        "mmac-universal", fidelity=fidelity, accuracy=accuracy, weight_after=2, epochs=8
    )
    history = learn_bounds(planted, clean, sites, settings).history
    weights = np.array([entry["weight"] for entry in history])
    np.testing.assert_array_equal(weights[:4], settings.weight)
    np.testing.assert_allclose(np.diff(np.log(weights[3:])) / np.log(1.2), expected)


def test_weight_follows_fidelity_to_its_target(planted, sites, clean, monkeypatch) -> None:
    scripted = iter([0.1, 0.1, 0.1, 0.02, 0.06, 0.08, 0.1, 0.12, 0.3, 0.1])
    epoch = _Loop._epoch
    monkeypatch.setattr(
        _Loop, "_epoch", lambda self, weight: {**epoch(self, weight), "fidelity": next(scripted)}
    )
    settings = quick("mmac-universal", fidelity=0.1, weight_after=2, epochs=10)
    history = learn_bounds(planted, clean, sites, settings).history
    steps = np.diff(np.log([entry["weight"] for entry in history])) / np.log(1.2)
    expected = [0, 0, 0, 1, 0.8, 0.4, 0, -0.4, -3]
    np.testing.assert_allclose(steps, expected, atol=1e-9)


def test_step_size_sinks_along_half_a_cosine(planted, sites, clean, monkeypatch) -> None:
    rates = []
    epoch = _Loop._epoch

    def recorded(self, weight):
        rates.append(self.optimizer.rate)
        return epoch(self, weight)

    monkeypatch.setattr(_Loop, "_epoch", recorded)
    settings = quick("mmac-universal", epochs=10, learning_rate=0.1, final_rate=0.2)
    learn_bounds(planted, clean, sites, settings)
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.06)  # half way
    assert (np.diff(rates) < 0).all()
    assert 0.02 < rates[-1] < 0.023


def test_margins_below_the_floor_do_not_pull(planted, sites, clean) -> None:
    settings = quick("mmac-universal", weight_factor=1.0, tightened_fidelity=None, keep="last")

    def learned(**changes: object) -> np.ndarray:
        return learn_bounds(planted, clean, sites, replace(settings, **changes)).bounds["active"]

    free = learned(weight=0.0)
    np.testing.assert_array_equal(learned(floor=1e6), free)
    np.testing.assert_array_equal(learned(floor=-1e6), learned(floor=None))
    assert not np.array_equal(learned(floor=-0.3), free)
    assert not np.array_equal(learned(floor=-0.3), learned(floor=None))


def test_divergence_is_that_of_the_softmaxes_in_nats(planted, sites, clean, monkeypatch) -> None:
    seen = []
    real = _Loop._divergence

    def recorded(self: _Loop, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        found = real(self, logits, reference)
        seen.append((logits.detach().double(), reference.double(), float(found.detach())))
        return found

    monkeypatch.setattr(_Loop, "_divergence", recorded)
    learn_bounds(planted, clean, sites, quick("mmac-universal", epochs=1, divergence=2.5))
    logits, reference, found = seen[0]
    assert not torch.equal(logits, reference)
    p, q = reference.softmax(1), logits.softmax(1)
    assert found == pytest.approx(2.5 * float((p * (p / q).log()).sum(1).mean()), rel=1e-4)
    seen.clear()
    learn_bounds(planted, clean, sites, quick("mmac-universal", epochs=1, divergence=0.0))
    assert {value for _, _, value in seen} == {0.0}


def test_divergence_moves_the_bounds(planted, sites, clean) -> None:
    def learned(divergence: float) -> np.ndarray:
        settings = quick("mmac-universal", divergence=divergence, weight=0.0, weight_factor=1.0)
        return learn_bounds(planted, clean, sites, settings).bounds["active"]

    assert not np.array_equal(learned(0.0), learned(1.0))


def test_bounds_that_lose_decisions_are_loosened_by_one_share_of_the_way(
    planted, sites, clean, monkeypatch
) -> None:
    settings = quick("mmac-universal", epochs=1, learning_rate=0.0, tightened_fidelity=None)
    enough = float("inf")

    def measure(self: _Loop) -> tuple[float, float]:
        return (
            1.0 if float(self.parameters.bounds()["active"].detach().max()) >= enough else 0.5
        ), 0.0

    monkeypatch.setattr(_Loop, "_judged", lambda self, accuracy: 0.5)
    monkeypatch.setattr(_Loop, "_measure", measure)
    lost = learn_bounds(planted, clean, sites, settings)
    assert any("no bounds kept" in warning for warning in lost.warnings)
    x = torch.from_numpy(clean.x)
    maxima = activation_statistics(planted, x, sites, "channel", 40)["active"].maximum.numpy()
    learned = lost.bounds["active"]
    assert (maxima > 1.2 * learned).sum() > 1 and (maxima < learned).sum() == 1
    tightened = replace(settings, tightened_fidelity=0.35)
    hopeless = learn_bounds(planted, clean, sites, tightened)
    assert any("no bounds kept" in warning for warning in hopeless.warnings)
    np.testing.assert_allclose(hopeless.bounds["active"], np.maximum(learned, maxima), rtol=1e-5)

    enough = 1.15 * float(learned.max())
    found = learn_bounds(planted, clean, sites, tightened)
    assert found.warnings == ()  # though no epoch was
    assert float(found.bounds["active"].max()) >= enough
    reach = np.maximum(maxima / learned, 1)
    shares = np.log(found.bounds["active"] / learned)[reach > 1.2] / np.log(reach)[reach > 1.2]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-3)
    np.testing.assert_allclose(found.bounds["active"], learned * reach ** shares[0], rtol=1e-3)
    less = learned * reach ** (shares[0] - 0.01)  # the share is no larger than it must be
    assert float(less.max()) < enough


@pytest.mark.parametrize("judged", [None, 50])
def test_accuracy_is_borne_down_to_a_standard_error_under_the_target(
    planted, sites, clean, monkeypatch, judged: int | None
) -> None:
    settings = quick("mmac-universal", epochs=1, accuracy=0.9, tightened_fidelity=0.3)
    calibration = None if judged is None else Samples(clean.x[:judged], clean.y[:judged])
    seen: list[float] = []
    monkeypatch.setattr(_Loop, "_loosen", lambda self, accuracy: seen.append(accuracy) or True)
    reached = 1.0
    monkeypatch.setattr(_Loop, "_measure", lambda self: (reached, 1.0))

    def learned() -> int:
        found = learn_bounds(planted, clean, sites, settings, calibration=calibration)
        return found.samples

    count = judged or learned()
    expected = 0.9 - np.sqrt(0.9 * 0.1 / count)
    reached = expected + 1e-6
    learned()
    assert seen == []
    reached = expected - 1e-6
    learned()
    assert seen == [pytest.approx(expected)]


def test_accuracy_is_the_lower_of_both_parts(planted, sites, clean, monkeypatch) -> None:
    settings = quick("mmac-universal", tightened_fidelity=None, epochs=3, start_value=3.0)
    told = iter([0.25, 0.5, 0.75])
    monkeypatch.setattr(Judge, "accuracy", lambda self, bounds: next(told))

    def accuracies(judged_on: str, calibration: Samples | None) -> list[float]:
        changed = replace(settings, judged_on=judged_on)
        found = learn_bounds(planted, clean, sites, changed, calibration=calibration)
        return [entry["accuracy"] for entry in found.history]

    assert accuracies("fit", clean) == accuracies("calibration", None) == [1.0, 1.0, 1.0]
    assert accuracies("calibration", clean) == [0.25, 0.5, 0.75]
    monkeypatch.setattr(Judge, "accuracy", lambda self, bounds: 7.0)
    assert accuracies("calibration", clean) == [1.0, 1.0, 1.0]


def test_mistakes_that_bounds_put_right_count_as_kept(planted, sites, clean, monkeypatch) -> None:
    settings = quick("mmac-universal", tightened_fidelity=None, epochs=2, learning_rate=0.0)
    monkeypatch.setattr(Judge, "accuracy", lambda self, bounds: 7.0)
    wrong = np.arange(len(clean.x)) < 6
    labels = np.where(wrong, (clean.y + 1) % 5, clean.y)
    put_right = iter([3, 4])
    seen = []

    def righted(self: Mistakes, bounds: object) -> int:
        seen.append((self._x.numpy(), self._labels.numpy()))
        return next(put_right)

    monkeypatch.setattr(Mistakes, "righted", righted)

    def found(judged_on: str) -> list[float]:
        changed = replace(settings, judged_on=judged_on)
        fit = Samples(clean.x, labels)
        return [
            e["accuracy"]
            for e in learn_bounds(planted, fit, sites, changed, calibration=clean).history
        ]

    without = found("fit")
    assert seen == []  # as published: of what the original gets right alone
    kept = int((~wrong).sum())
    assert found("calibration") == pytest.approx([without[0] + 3 / kept, without[1] + 4 / kept])
    for x, answers in seen:
        np.testing.assert_array_equal(x, clean.x[wrong])
        np.testing.assert_array_equal(answers, labels[wrong])

    # What is measured at the end counts them, too; without labels there are none.
    measured = []
    measure = _Loop._measure
    monkeypatch.setattr(_Loop, "_measure", lambda self: measured.append(measure(self)) or (1, 9))
    monkeypatch.setattr(Mistakes, "righted", lambda self, bounds: 3)
    settings = replace(settings, tightened_fidelity=0.3)
    found("calibration")
    assert measured[0][0] == pytest.approx(without[-1] + 3 / kept)
    seen.clear()
    monkeypatch.setattr(Mistakes, "righted", righted)
    learn_bounds(planted, Samples(clean.x), sites, settings, calibration=clean)
    assert seen == []


def test_attackers_are_told_what_each_batch_reached(planted, sites, clean, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(UniversalAttackers, "reached", lambda self, *given: told.append(given))
    batches = []
    batch = UniversalAttackers.batch

    def recorded(self: UniversalAttackers, samples: torch.Tensor):
        batches.append(batch(self, samples))
        return batches[-1]

    monkeypatch.setattr(UniversalAttackers, "batch", recorded)
    settings = quick("mmac-universal", epochs=1, learning_rate=0.0, tightened_fidelity=None)
    learned = learn_bounds(planted, clean, sites, settings)
    assert len(told) == len(batches) == -(-len(clean) // 40)
    x = torch.from_numpy(clean.x)
    reference = planted.logits(x)
    unit = margins(reference, reference.argmax(1)).mean()
    for (last, found), (attacks, targets) in zip(told, batches, strict=True):
        assert torch.equal(last, targets)
        expected = margins(planted.logits(attacks, bounds_of(learned)), targets) / unit
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not found.requires_grad


def test_margins_that_are_not_finite_end_learning_as_bad_data_does(
    planted, sites, clean, monkeypatch
) -> None:
    losses = _Loop._losses

    def poisoned(self: _Loop, batch: torch.Tensor):
        found = losses(self, batch)
        targets = torch.zeros(len(batch), dtype=torch.int64)
        self.attackers.reached(targets, torch.full((len(batch),), torch.nan))
        return found[0] * torch.nan, *found[1:]

    monkeypatch.setattr(_Loop, "_losses", poisoned)
    with pytest.raises(DataError, match="diverged"):
        learn_bounds(planted, clean, sites, quick("mmac-universal"))


@pytest.mark.parametrize(
    ("epochs", "most", "every", "renewals"),
    [
        (12, 4, 5, [0, 5, 10]),  # all classes at a time: as the settings have it
        (12, 2, 5, [0, 3, 6, 9]),  # two turns for each half
        (12, 2, 2, [0, 2, 4, 6, 8, 10]),  # more often than it takes
        (3, 2, 5, [0, 1, 2]),  # too short for two turns: each epoch
        (6, 2, 0, [0]),  # never
    ],
)
def test_attackers_are_renewed_so_often_that_each_class_has_two_turns(
    planted, sites, clean, monkeypatch, epochs: int, most: int, every: int, renewals: list[int]
) -> None:
    monkeypatch.setattr("mmbm_onnx.learning.universal._MOST_CLASSES", most)
    epoch, seen = [0], []
    rate, renew = _Loop._set_rate, UniversalAttackers.renew

    def begun(self: _Loop, number: int) -> None:
        epoch[0] = number
        rate(self, number)

    def renewed(self: UniversalAttackers, bounds: dict[str, torch.Tensor]) -> None:
        seen.append(epoch[0])
        renew(self, bounds)

    monkeypatch.setattr(_Loop, "_set_rate", begun)
    monkeypatch.setattr(UniversalAttackers, "renew", renewed)
    settings = quick("mmac-universal", epochs=epochs, renewed_every=every, renewal_steps=1)
    learned = learn_bounds(planted, clean, sites, settings)
    assert seen == renewals
    missed = any("never attacked" in warning for warning in learned.warnings)
    assert missed == (most * len(renewals) < 4)
