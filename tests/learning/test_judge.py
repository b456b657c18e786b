from __future__ import annotations

import numpy as np
import pytest
import torch

from mmbm_onnx.learning import judge as room
from mmbm_onnx.learning.judge import Judge, Mistakes
from mmbm_onnx.types import Samples

NOTHING_PASSES = {"active": torch.zeros(5)}


def one_of(classes: list[int]) -> np.ndarray:
    """Inputs that speak for these classes, which the network gets right."""
    return np.eye(5, dtype=np.float32)[classes]


def without(*classes: int) -> dict[str, torch.Tensor]:
    """Bounds under which these classes cannot be told."""
    bound = torch.full((5,), 10.0)
    bound[list(classes)] = 0
    return {"active": bound}


def test_accuracy_is_a_share_of_what_the_original_gets_right(planted) -> None:
    x = one_of([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    labels = np.asarray([0, 1, 1, 2, 2, 2, 3, 3, 0, 0])  # the original gets eight right
    judge = Judge(planted, Samples(x, labels), 4, 0)
    assert judge.accuracy({}) == 1.0
    # What cannot be told is decided for class 0, the first of equals: threes that are labelled 0
    # become right, others wrong.
    assert judge.accuracy(without(2)) == 5 / 8
    assert judge.accuracy(without(3)) == 1.0  # two lost, two won
    assert judge.accuracy(without(1, 2)) == 3 / 8


def test_one_sample_is_left_to_chance_and_not_more(planted) -> None:
    x = one_of([1, 2, 2, 3, 3, 3])
    judge = Judge(planted, Samples(x, np.asarray([1, 2, 2, 3, 3, 3])), 100, 0)
    assert judge.accuracy(without(1)) == 1.0
    assert judge.accuracy(without(2)) == 4 / 6


def test_without_labels_the_decisions_are_what_is_right(planted) -> None:
    judge = Judge(planted, Samples(one_of([1, 2, 2, 3])), 2, 0)
    assert judge.accuracy(without(2)) == 0.5
    assert judge.accuracy(NOTHING_PASSES) == 0.0


def test_an_original_that_is_always_wrong_can_only_be_bettered(planted) -> None:
    judge = Judge(planted, Samples(one_of([1, 2, 2]), np.asarray([0, 0, 0])), 2, 0)
    assert judge.accuracy({}) == 1.0
    assert judge.accuracy(without(2)) == 2.0


def test_of_many_samples_some_are_drawn_by_the_seed(planted, monkeypatch) -> None:
    monkeypatch.setattr(room, "_MOST", 6)
    x = one_of([1] * 10 + [2] * 10)

    def found(seed: int) -> float:
        return Judge(planted, Samples(x), 4, seed).accuracy(without(2))

    assert found(0) == found(0)
    shares = {found(seed) for seed in range(20)}
    assert len(shares) > 2
    assert all(share * 6 == pytest.approx(round(share * 6)) for share in shares)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_mistakes_that_bounds_put_right_are_counted(planted, batch_size: int) -> None:
    x = torch.from_numpy(one_of([1, 2, 2, 3]))
    mistakes = Mistakes(planted, x, torch.tensor([0, 0, 1, 0]), batch_size)
    assert mistakes.righted({}) == 0
    assert mistakes.righted(without(2)) == 1  # decided for class 0, which is right for one of two
    assert mistakes.righted(NOTHING_PASSES) == 3
    assert Mistakes(planted, x[:0], torch.tensor([], dtype=torch.int64), 2).righted({}) == 0
