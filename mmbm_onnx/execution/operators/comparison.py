"""Comparisons, logic and selection."""

from __future__ import annotations

import torch
from torch import Tensor

from mmbm_onnx.execution.operators.arguments import ordered, widened
from mmbm_onnx.execution.registry import NodeView, operator


@operator("Equal", since=7, limits="no strings")
def equal(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a == b, broadcast."""
    return widened(a) == widened(b)


@operator("Greater", since=7)
def greater(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a > b, broadcast."""
    return ordered(a) > ordered(b)


@operator("Less", since=7)
def less(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a < b, broadcast."""
    return ordered(a) < ordered(b)


@operator("GreaterOrEqual", since=12)
def greater_or_equal(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a >= b, broadcast."""
    return ordered(a) >= ordered(b)


@operator("LessOrEqual", since=12)
def less_or_equal(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a <= b, broadcast."""
    return ordered(a) <= ordered(b)


@operator("And", since=7)
def logical_and(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """Both, broadcast."""
    return torch.logical_and(a, b)


@operator("Or", since=7)
def logical_or(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """Either, broadcast."""
    return torch.logical_or(a, b)


@operator("Xor", since=7)
def logical_xor(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """One of the two, broadcast."""
    return torch.logical_xor(a, b)


@operator("Not")
def logical_not(_: NodeView, x: Tensor) -> Tensor:
    """Negation."""
    return torch.logical_not(x)


@operator("Where", since=9)
def where(_: NodeView, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition holds, else b; all three broadcast."""
    return torch.where(condition, widened(a), widened(b)).to(a.dtype)


@operator("IsNaN", since=9)
def is_nan(_: NodeView, x: Tensor) -> Tensor:
    """Whether elements are NaN."""
    return torch.isnan(x)


@operator("IsInf", since=10, attributes=("detect_negative", "detect_positive"))
def is_inf(node: NodeView, x: Tensor) -> Tensor:
    """Whether elements are infinite, of the signs asked for."""
    negative = torch.isneginf(x) & bool(node.attributes["detect_negative"])
    positive = torch.isposinf(x) & bool(node.attributes["detect_positive"])
    return negative | positive
