"""Arithmetic and functions applied element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.operators.arguments import flipped, ordered, widened
from mmbm_onnx.execution.registry import NodeView, operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # halves to even, as in ONNX
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def apply(_: NodeView, x: Tensor) -> Tensor:
        return function(x)


for _name, _function in _UNARY.items():
    _register_unary(_name, _function)


@operator("Abs")
def absolute(_: NodeView, x: Tensor) -> Tensor:
    """|x|."""
    return x if x.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64) else x.abs()


@operator("Sign", since=9)
def sign(_: NodeView, x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    if x.dtype == torch.uint64:
        return (widened(x) != 0).to(x.dtype)
    return torch.sign(widened(x)).to(x.dtype)


@operator("Add", since=7)
def add(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a + b, broadcast; integers wrap around."""
    return (widened(a) + widened(b)).to(a.dtype)


@operator("Sub", since=7)
def subtract(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a - b, broadcast; integers wrap around."""
    return (widened(a) - widened(b)).to(a.dtype)


@operator("Mul", since=7)
def multiply(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a * b, broadcast; integers wrap around."""
    return (widened(a) * widened(b)).to(a.dtype)


@operator("Div", since=7, limits="no uint64")
def divide(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a / b, broadcast; integers are rounded towards zero."""
    if a.is_floating_point():
        return a / b
    _refuse_uint64(a)
    return torch.div(widened(a), widened(b), rounding_mode="trunc").to(a.dtype)


@operator("Mod", since=10, attributes=("fmod",), limits="no uint64")
def modulo(node: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the sign of ``b``, or of ``a`` with fmod=1."""
    _refuse_uint64(a)
    if node.get("fmod", 0):
        return torch.fmod(widened(a), widened(b)).to(a.dtype)
    return torch.remainder(widened(a), widened(b)).to(a.dtype)


@operator("Pow", since=7)
def power(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a to the b, broadcast, in the type of ``a``."""
    return torch.pow(widened(a), widened(b)).to(a.dtype)


@operator("Max", since=6)
def maximum(_: NodeView, *values: Tensor) -> Tensor:
    """Largest of the inputs, broadcast; NaN wins."""
    return _extreme(torch.maximum, values)


@operator("Min", since=6)
def minimum(_: NodeView, *values: Tensor) -> Tensor:
    """Smallest of the inputs, broadcast; NaN wins."""
    return _extreme(torch.minimum, values)


def _extreme(choose: Callable[[Tensor, Tensor], Tensor], values: tuple[Tensor, ...]) -> Tensor:
    dtype = values[0].dtype
    result = reduce(choose, [ordered(value) for value in values])
    return (flipped(result) if dtype == torch.uint64 else result).to(dtype)


@operator("Sum", since=6)
def total(_: NodeView, *values: Tensor) -> Tensor:
    """Sum of the inputs, broadcast."""
    return reduce(torch.add, values)


@operator("Mean", since=6)
def mean(_: NodeView, *values: Tensor) -> Tensor:
    """Mean of the inputs, broadcast."""
    return reduce(torch.add, values) / len(values)


@operator("Clip", since=6, attributes=("min", "max"))
def clip_6(node: NodeView, x: Tensor) -> Tensor:
    """``x`` limited to [min, max]; the defaults are the limits of float32."""
    return torch.clamp(x, node.get("min"), node.get("max"))


@operator("Clip", since=11)
def clip_11(
    _: NodeView, x: Tensor, lower: Tensor | None = None, upper: Tensor | None = None
) -> Tensor:
    """``x`` limited to [lower, upper]; ``upper`` wins where the two cross."""
    if lower is None and upper is None:
        return x
    low = None if lower is None else ordered(lower.reshape(()))
    high = None if upper is None else ordered(upper.reshape(()))
    result = torch.clamp(ordered(x), low, high)
    return (flipped(result) if x.dtype == torch.uint64 else result).to(x.dtype)


@operator("BitwiseAnd", since=18)
def bitwise_and(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a & b, broadcast."""
    return torch.bitwise_and(widened(a), widened(b)).to(a.dtype)


@operator("BitwiseOr", since=18)
def bitwise_or(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a | b, broadcast."""
    return torch.bitwise_or(widened(a), widened(b)).to(a.dtype)


@operator("BitwiseXor", since=18)
def bitwise_xor(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a ^ b, broadcast."""
    return torch.bitwise_xor(widened(a), widened(b)).to(a.dtype)


@operator("BitwiseNot", since=18)
def bitwise_not(_: NodeView, x: Tensor) -> Tensor:
    """~x."""
    return torch.bitwise_not(widened(x)).to(x.dtype)


@operator("BitShift", since=11, attributes=("direction",))
def bit_shift(node: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """a shifted by b bits, broadcast; unsigned, so zeros come in from both sides."""
    wide, count = widened(a), widened(b)
    if node.attributes["direction"] == "LEFT":
        return torch.bitwise_left_shift(wide, count).to(a.dtype)
    if a.dtype != torch.uint64:
        return torch.bitwise_right_shift(wide, count).to(a.dtype)
    # The first step clears the sign bit, which int64 would copy.
    halved = torch.bitwise_and(wide >> 1, torch.iinfo(torch.int64).max)
    return torch.where(count == 0, wide, halved >> (count - 1).clamp(min=0)).to(a.dtype)


def _refuse_uint64(x: Tensor) -> None:
    if x.dtype == torch.uint64:
        raise UnsupportedOperatorError("uint64 division has no exact counterpart in torch")
