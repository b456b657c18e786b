from __future__ import annotations

import numpy as np
import pytest
import torch

from mmbm_onnx.learning import judge as room
from mmbm_onnx.learning.judge import Judge
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
