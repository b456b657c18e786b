"""Reductions over axes, searches and running sums."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.operators.arguments import (
    counted,
    counted_all,
    flipped,
    integer,
    integers,
    ordered,
    widened,
)
from mmbm_onnx.execution.registry import NodeView, operator

Reducer = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return widened(x).sum(axes, keepdim=keep, dtype=widened(x).dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = prod(x.shape[axis] for axis in axes)
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    x = widened(x)
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _max(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, largest=True)


def _min(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, largest=False)


def _extreme(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    if any(x.shape[axis] == 0 for axis in axes):
        return _extreme_of_nothing(x, axes, keep, largest)
    comparable = ordered(x)
    result = comparable.amax(axes, keep) if largest else comparable.amin(axes, keep)
    return flipped(result) if x.dtype == torch.uint64 else result


def _extreme_of_nothing(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    """The neutral element: minus infinity (or the type's smallest value) for a maximum."""
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    if not keep:
        shape = [length for axis, length in enumerate(x.shape) if axis not in axes]
    if x.is_floating_point():
        value = -torch.inf if largest else torch.inf
        return torch.full(shape, value, dtype=x.dtype, device=x.device)
    if x.dtype == torch.bool:
        return torch.full(shape, not largest, device=x.device)
    limits = torch.iinfo(x.dtype)
    value = limits.min if largest else limits.max
    return torch.full(shape, value, dtype=x.dtype, device=x.device)


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(widened(x).abs(), axes, keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return _sum(widened(x) * widened(x), axes, keep).double().sqrt()
    # vector_norm has gradient zero, not NaN, where all elements are zero.
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return norm


def _square_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(widened(x) * widened(x), axes, keep)


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _real_sum(x, axes, keep).log()


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(_real(x), axes, keep)


def _real(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.double()


def _real_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _real(_sum(x, axes, keep))


_REDUCERS: dict[str, Reducer] = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _max,
    "ReduceMean": _mean,
    "ReduceMin": _min,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": _square_sum,
}


def _reduced(node: NodeView, x: Tensor, axes: list[int] | None) -> Tensor:
    chosen = list(range(x.ndim)) if axes is None else counted_all(axes, x.ndim)
    reducer = _REDUCERS[node.op_type]
    if not chosen:
        # Nothing to sum over, yet the function of each element remains (|x|, x squared, log x).
        return reducer(x.unsqueeze(0), [0], False).to(x.dtype)
    return reducer(x, chosen, bool(node.attributes["keepdims"])).to(x.dtype)


def _register(name: str, inputs_since: int) -> None:
    """Axes are an attribute before opset ``inputs_since``, an input from then on."""

    @operator(name, attributes=("axes", "keepdims"))
    def by_attribute(node: NodeView, x: Tensor) -> Tensor:
        return _reduced(node, x, node.get("axes") or None)

    @operator(name, since=inputs_since, attributes=("keepdims", "noop_with_empty_axes"), host=(1,))
    def by_input(node: NodeView, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = [] if axes is None else integers(axes)
        if not chosen and not node.attributes["noop_with_empty_axes"]:
            return _reduced(node, x, None)
        return _reduced(node, x, chosen)


for _name in _REDUCERS:
    _register(_name, 13 if _name == "ReduceSum" else 18)


@operator("ArgMax", attributes=("axis", "keepdims", "select_last_index"))
@operator("ArgMin", attributes=("axis", "keepdims", "select_last_index"))
def arg_extreme(node: NodeView, x: Tensor) -> Tensor:
    """Place of the first (or last) extreme along ``axis``, int64."""
    axis = counted(node.attributes["axis"], x.ndim)
    x = ordered(x)
    last = bool(node.get("select_last_index", 0))
    x = x.flip(axis) if last else x
    search = torch.argmax if node.op_type == "ArgMax" else torch.argmin
    places = search(x, axis, keepdim=bool(node.attributes["keepdims"]))
    return x.shape[axis] - 1 - places if last else places


@operator("CumSum", since=11, attributes=("exclusive", "reverse"), host=(1,))
@operator("CumProd", since=26, attributes=("exclusive", "reverse"), host=(1,))
def running(node: NodeView, x: Tensor, axis: Tensor) -> Tensor:
    """Sum or product up to each place, with or without its own element, from either end."""
    along = counted(integer(axis), x.ndim)
    wide = widened(x)
    wide = wide.flip(along) if node.attributes["reverse"] else wide
    sums = node.op_type == "CumSum"
    result = (torch.cumsum if sums else torch.cumprod)(wide, along, dtype=wide.dtype)
    if node.attributes["exclusive"]:
        length = result.shape[along]
        first = torch.full_like(result.narrow(along, 0, min(1, length)), 0 if sums else 1)
        result = torch.cat([first, result.narrow(along, 0, max(0, length - 1))], along)
    return (result.flip(along) if node.attributes["reverse"] else result).to(x.dtype)


@operator("TopK", attributes=("axis", "k"))
def top_k_1(node: NodeView, x: Tensor) -> tuple[Tensor, Tensor]:
    """Before opset 10: k is an attribute."""
    return _extremes(x, node.attributes["k"], node.attributes["axis"], largest=True)


@operator("TopK", since=10, attributes=("axis", "largest", "sorted"), host=(1,))
def top_k_10(node: NodeView, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The ``count`` largest or smallest elements and their places, best first."""
    largest = bool(node.get("largest", 1))
    return _extremes(x, integer(count), node.attributes["axis"], largest)


def _extremes(x: Tensor, count: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.uint64:
        raise UnsupportedOperatorError("uint64 cannot be sorted in torch")
    axis = counted(axis, x.ndim)
    if not 0 <= count <= x.shape[axis]:
        raise ModelError(f"k is {count} on an axis of length {x.shape[axis]}")
    # A stable sort: of equal elements the one that comes first wins, as ONNX asks.
    values, places = torch.sort(widened(x), dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count).to(x.dtype), places.narrow(axis, 0, count)
