"""Activations cut off at upper bounds, with a gradient that is cheap to compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bounded(value: Tensor, limit: Tensor) -> Tensor:
    """The minimum of activations and their bounds, as ONNX Min has it.

    Gradients flow to both: where the bound cuts, to the bound, and elsewhere, ties included, to
    the activation. (``torch.minimum`` halves ties between the two, in several passes over memory
    that cost three times as much as all of this.)

    Args:
        value: Activations, of any shape.
        limit: Bounds, of as many axes or none, each axis as long as the activations' or 1.

    Returns:
        A tensor of the shape of ``value``.
    """
    result: Tensor = _Bounded.apply(value, limit)  # type: ignore[no-untyped-call]
    return result


class _Bounded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, limit: Tensor) -> Tensor:
        return torch.minimum(value, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        value, limit = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return gradient * (value <= limit), None
        cut = gradient * (value > limit)
        return gradient - cut, cut.sum_to_size(limit.shape)
