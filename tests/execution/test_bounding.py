"""Bounds on activations: values as of a minimum, and who the gradient goes to."""

import pytest
import torch

from mmbm_onnx.execution.bounding import bounded


def _case(
    shape: tuple[int, ...], limit: tuple[int, ...], layout: torch.memory_format
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(shape, generator=generator, dtype=torch.float64)
    if len(shape) == 4:
        value = value.to(memory_format=layout)
    bound = torch.rand(limit, generator=generator, dtype=torch.float64)
    return value.requires_grad_(), bound.requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ((5, 3, 4, 2), (1, 3, 1, 1)),
        ((5, 3, 4, 2), ()),
        ((5, 4, 3), (1, 1, 3)),
        ((5, 3), (1, 3)),
        ((5, 1, 4, 2), (1, 1, 1, 1)),
        ((5, 3), (5, 3)),
    ],
)
def test_values_and_gradients_are_those_of_a_minimum(
    shape: tuple[int, ...], limit: tuple[int, ...], layout: torch.memory_format
) -> None:
    value, bound = _case(shape, limit, layout)
    pull = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.minimum(value, bound)
    assert 0 < int((value > bound).sum()) < value.numel()  # both are cut and left
    found = bounded(value, bound)
    assert torch.equal(found, expected)
    theirs = torch.autograd.grad(expected, (value, bound), pull)
    ours = torch.autograd.grad(found, (value, bound), pull)
    for gradient, reference in zip(ours, theirs, strict=True):
        assert gradient.shape == reference.shape
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def test_gradients_agree_with_differences() -> None:
    value, bound = _case((3, 2, 2, 2), (1, 2, 1, 1), torch.contiguous_format)
    assert torch.autograd.gradcheck(bounded, (value, bound))


def test_a_tie_pulls_the_activation_and_not_the_bound() -> None:
    value = torch.tensor([[6.0, 5.0, 7.0]], requires_grad=True)
    bound = torch.tensor([[6.0]], requires_grad=True)
    bounded(value, bound).sum().backward()
    assert value.grad is not None and value.grad.tolist() == [[1.0, 1.0, 0.0]]
    assert bound.grad is not None and bound.grad.tolist() == [[1.0]]


def test_a_bound_that_learns_nothing_gets_no_gradient() -> None:
    value, bound = _case((5, 3), (1, 3), torch.contiguous_format)
    bounded(value, bound.detach()).sum().backward()
    assert value.grad is not None
    assert torch.equal(value.grad, (value <= bound).double())
    assert bound.grad is None


@pytest.mark.parametrize(
    ("limit", "dims"),
    [((1, 3), (0, None)), ((4, 1, 3), (0, 0)), ((4,), (0, 0)), ((1, 3, 4), (1, 2))],
)
def test_groups_at_once_give_what_each_gives_alone(
    limit: tuple[int, ...], dims: tuple[int, int | None]
) -> None:
    value, bound = _case((5, 4, 3) if dims[0] else (4, 5, 3), limit, torch.contiguous_format)
    together = torch.func.vmap(bounded, dims)(value, bound)
    values = value.unbind(dims[0])
    bounds = [bound] * 4 if dims[1] is None else bound.unbind(dims[1])
    alone = torch.stack([bounded(one, of) for one, of in zip(values, bounds, strict=True)])
    assert torch.equal(together, alone)
    pull = torch.arange(float(value.numel()), dtype=torch.float64).reshape(alone.shape)
    for ours, theirs in zip(
        torch.autograd.grad(together, (value, bound), pull),
        torch.autograd.grad(alone, (value, bound), pull),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_value_under_the_bounds_of_each_group() -> None:
    value, bound = _case((5, 3), (4, 1, 3), torch.contiguous_format)
    together = torch.func.vmap(bounded, (None, 0))(value, bound)
    alone = torch.stack([bounded(value, of) for of in bound])
    assert torch.equal(together, alone)
    for ours, theirs in zip(
        torch.autograd.grad(together.sum(), (value, bound)),
        torch.autograd.grad(alone.sum(), (value, bound)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
