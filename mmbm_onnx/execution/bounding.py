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
    @staticmethod
    def forward(value: Tensor, limit: Tensor) -> Tensor:
        return torch.minimum(value, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        value, limit = ctx.saved_tensors
        # Comparisons come as numbers: to multiply by booleans takes four times as long.
        numbers = torch.empty_like(gradient)
        if not ctx.needs_input_grad[1]:
            return torch.le(value, limit, out=numbers).mul_(gradient), None
        cut = torch.gt(value, limit, out=numbers).mul_(gradient)
        total = cut.sum_to_size(limit.shape)
        if limit.numel() == cut.numel():  # nothing was summed: that is cut itself
            return gradient - cut, total
        return torch.sub(gradient, cut, out=cut), total

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], value: Tensor, limit: Tensor
    ) -> tuple[Tensor, int]:
        """All groups as one, so that ``backward`` has tensors that it may write to."""
        of_value, of_limit = in_dims
        rank = value.ndim - (of_value is not None)
        value = value[None] if of_value is None else value.movedim(of_value, 0)
        if of_limit is not None:
            limit = limit.movedim(of_limit, 0)
            limit = limit.reshape(len(limit), *[1] * (rank - limit.ndim + 1), *limit.shape[1:])
        return _Bounded.apply(value, limit), 0  # type: ignore[no-untyped-call]
