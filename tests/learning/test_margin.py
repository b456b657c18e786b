from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import margins, max_margin_inputs
from mmbm_onnx.learning.settings import settings_for


def test_margin_is_own_logit_minus_largest_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-5.0, -7.0, -6.0]])
    found = margins(logits, torch.tensor([0, 1, 2]))
    assert found.tolist() == [1.0, -2.0, -1.0]


def test_margin_of_two_classes_is_antisymmetric() -> None:
    logits = torch.tensor([[0.5, 2.0]])
    assert margins(logits, torch.tensor([0])) == -margins(logits, torch.tensor([1]))


def test_margin_gradient_pulls_own_up_and_strongest_rival_down() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    margins(logits, torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize("method", ["mmac", "mmac-reference"])
def test_inputs_climb_to_large_margins_inside_the_range(planted, method: str) -> None:
    settings = settings_for(method)

    def make(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = max_margin_inputs(
            planted,
            Points(torch.zeros(1, 5)),
            4,
            replace(settings, input_steps=steps),
            per_class=6,
            low=0.0,
            high=1.0,
            generator=torch.Generator().manual_seed(3),
        )
        return inputs.values, labels

    start, labels = make(0)
    end, _ = make(100)
    assert labels.tolist() == [c for c in range(4) for _ in range(6)]
    assert end.shape == (24, 5)
    assert float(end.min()) >= 0 and float(end.max()) <= 1
    gained = margins(planted.logits(end), labels) - margins(planted.logits(start), labels)
    assert (gained > 0).all()
    # The planted unit gives class 0 the largest margin of all: that is what MM-BD reads.
    reached = margins(planted.logits(end), labels).reshape(4, 6).amax(1)
    assert int(reached.argmax()) == 0


def test_inputs_depend_on_the_seed_alone(planted) -> None:
    def make(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        settings = settings_for("mmac")
        clean = Points(torch.zeros(1, 5))
        inputs, _ = max_margin_inputs(
            planted, clean, 4, settings, per_class=3, low=0.0, high=1.0, generator=generator
        )
        return inputs.values

    assert torch.equal(make(5), make(5))
    assert not torch.equal(make(5), make(6))
