"""Is a graph in int8 or float16 another one in float32, up to the rounding of its weights?

Both are walked from their outputs to their input, node beside node. What only rounds or limits
(QuantizeLinear, DequantizeLinear, Cast; Relu and Clip, which a quantizer leaves to the range of
what follows) is passed over, and noted: limits have to be the same on every path, and weights no
further from each other than half a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.graph.walk import STANDARD_DOMAINS, attribute, constant_values, producers
from mmbm_onnx.types import BoolArray

Values = npt.NDArray[np.float64]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_HALF_STEP = 0.5 * (1 + 1e-4)  # of a step; the rest is float32's rounding
_ROUNDING = 1e-6  # of the value: of what is computed in float32
_HALF_ROUNDING, _HALF_SMALLEST = 2.0**-11, 6e-8  # float16: half a unit in the last place
_COARSEST = 1 / 60  # step of a channel's weights, of the largest: 1 / 64 with 7 bits
_BIAS = 1.1 * 2.0**-31  # step of a bias, of the bias, that is no finer than int32 needs


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant: its values, and the steps it is stored in where it is quantized, which broadcast
    against them, or None."""

    values: npt.NDArray[Any]
    steps: Values | None = None


@dataclass(slots=True)
class _Path:
    """What stands between a tensor and what it is computed from, and the constant or the name at
    the end of it."""

    end: str = ""
    weight: _Weight | None = None
    low: float = -np.inf
    high: float = np.inf
    lowest: float = -np.inf  # the same of Relu and Clip alone, without ranges
    highest: float = np.inf
    step: float = 0.0  # of what is read, where that is quantized

    def limit(self, low: float, high: float) -> None:
        """What a node does to values."""
        self.lowest, self.highest = max(self.lowest, low), min(self.highest, high)
        self.range(low, high)

    def range(self, low: float, high: float) -> None:
        """What values are quantized in."""
        self.low, self.high = max(self.low, low), min(self.high, high)


class _Odd(Exception):  # noqa: N818
    """Why the graphs differ."""


def rounding_difference(
    plain: onnx.GraphProto, rounded: onnx.GraphProto, *, exact: bool = False
) -> str:
    """Why ``rounded`` is not ``plain`` with its weights and activations rounded.

    Args:
        plain: A float32 graph with one input and one output.
        rounded: The same with weights in int8 (or, of biases, int32) and ranges of activations that
            its limits are in, or with weights in float16.
        exact: Whether nothing may be rounded: the same nodes, and constants with the same bits.

    Returns:
        One line on the first difference, which names a tensor; or nothing.
    """
    left, right = _Graph(plain, exact=exact), _Graph(rounded, exact=exact)
    seen: dict[str, str] = {}
    taken: set[str] = set()
    pairs = [(plain.output[0].name, rounded.output[0].name)]
    try:
        while pairs:
            one, other = pairs.pop()
            first, second = left.path(one), right.path(other)
            _same_limits(one, first, second)
            if first.weight is not None or second.weight is not None:
                _same_weight(one, first.weight, second.weight, exact=exact)
                continue
            if first.end in seen:
                if seen[first.end] != second.end:
                    return f"what computes {one!r} is read from another place"
                continue
            if second.end in taken:
                return f"what computes {one!r} is read from another place"
            seen[first.end] = second.end
            taken.add(second.end)
            pairs += _below(left, first.end, right, second.end)
    except _Odd as found:
        return str(found)
    return ""


def _below(left: _Graph, one: str, right: _Graph, other: str) -> list[tuple[str, str]]:
    """What both nodes read, if they are the same but for that."""
    if one in left.inputs or other in right.inputs:
        if one in left.inputs and other in right.inputs:
            return []
        raise _Odd(f"{one!r} is not computed from the same")
    old, new = left.made_by.get(one), right.made_by.get(other)
    if old is None or new is None:
        raise _Odd(f"nothing computes {one!r}")
    place = list(old.output).index(one)
    if _head(old) != _head(new) or list(new.output).index(other) != place:
        raise _Odd(f"the node that computes {one!r} is another one")
    if not right.exact:
        _check_steps(left, old, right, new, one)
    return [(a, b) for a, b in zip(old.input, new.input, strict=True) if a]


def _head(node: onnx.NodeProto) -> tuple[object, ...]:
    entries = sorted(bytes(entry.SerializeToString(deterministic=True)) for entry in node.attribute)
    used = [bool(name) for name in node.input]
    return node.op_type, node.domain, entries, used, len(node.output)


class _Graph:
    """A graph, its constants, and what computes its tensors."""

    def __init__(self, graph: onnx.GraphProto, *, exact: bool) -> None:
        self.exact = exact  # whether no node is passed over
        self.made_by: Mapping[str, onnx.NodeProto] = producers(graph)
        self.constants = constant_values(graph)
        self.inputs = {info.name for info in graph.input} - self.constants.keys()

    def path(self, name: str) -> _Path:
        """Back from a tensor to what it is computed from.

        Raises:
            _Odd: It is not quantized as it is dequantized.
        """
        path = _Path()
        asked, scale = name, None
        while True:
            if name in self.constants:
                path.weight = _Weight(self.value(name))
                return path
            node = self.made_by.get(name)
            kind = node.op_type if node is not None and node.domain in STANDARD_DOMAINS else ""
            if node is None or kind not in _PASSED or self.exact:
                path.end = name
                return path
            if kind == "Cast":
                if attribute(node, "to") not in _FLOATS:
                    path.end = name
                    return path
            elif kind == "Relu":
                path.limit(0.0, np.inf)
            elif kind == "Clip":
                limits = self._limits(node)
                if limits is None:
                    path.end = name
                    return path
                path.limit(*limits)
            elif kind == "DequantizeLinear":
                if node.input[0] in self.constants:
                    path.weight = self._dequantized(node)
                    return path
                scale = self._scale(node)
                source = self.made_by.get(node.input[0])
                if source is None or source.op_type != "QuantizeLinear":
                    raise _Odd(f"what {asked!r} is dequantized from is not quantized")
            else:  # QuantizeLinear
                step, zero = self._scale(node)
                if scale != (step, zero):
                    raise _Odd(f"{asked!r} is not quantized as it is dequantized")
                path.step = path.step or step
                path.range(-zero * step, (255 - zero) * step)
            name = node.input[0]

    def value(self, name: str) -> npt.NDArray[Any]:
        """A constant's value."""
        return to_array(self.constants[name])

    def _known(self, name: str, what: str) -> npt.NDArray[Any]:
        if name not in self.constants:
            raise _Odd(f"{what} {name!r} is not constant")
        return self.value(name)

    def _limits(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """Of a Clip; None where they are not known."""
        found = [attribute(node, "min", -np.inf), attribute(node, "max", np.inf)]
        for place, name in enumerate(node.input[1:3]):
            if not name:
                continue
            limit = self.path(name).weight
            if limit is None or limit.values.size != 1:
                return None
            found[place] = limit.values.reshape(())
        return float(found[0]), float(found[1])

    def _scale(self, node: onnx.NodeProto) -> tuple[float, int]:
        """Step and zero point of an activation in uint8."""
        what = f"the scale of {node.input[0]!r},"
        scale = self._known(node.input[1], what)
        zero = self._known(node.input[2], what) if len(node.input) > 2 else np.uint8(0)
        step = float(np.asarray(scale, np.float64).ravel()[0])
        if np.size(scale) != 1 or np.asarray(zero).dtype != np.uint8 or np.size(zero) != 1:
            raise _Odd(f"{what} is not one step of uint8")
        if not (np.isfinite(step) and step > 0):
            raise _Odd(f"{what} is {step:g}")
        return step, int(np.asarray(zero).ravel()[0])

    def _dequantized(self, node: onnx.NodeProto) -> _Weight:
        stored = self.value(node.input[0])
        scale = np.asarray(self._known(node.input[1], "the scale"), np.float64)
        zero = np.asarray(
            self._known(node.input[2], "the zero point") if node.input[2:3] else np.int8(0)
        )
        # What is added, say, is stored as activations are: in uint8, with a zero point.
        middle = float(zero.ravel()[0]) if stored.dtype == np.uint8 and zero.size == 1 else 0.0
        if (zero != middle).any() or stored.dtype not in (np.int8, np.uint8, np.int32):
            raise _Odd(f"weight {node.input[0]!r} is not stored around 0 in int8 or int32")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise _Odd(f"the scale {node.input[1]!r} is not finite and positive")
        if scale.size == 1:  # of the whole tensor, as a number or as a row of one
            scale = scale.reshape(())
        else:
            axis = attribute(node, "axis", 1) % max(stored.ndim, 1)
            if scale.shape != stored.shape[axis : axis + 1]:
                raise _Odd(f"the scale {node.input[1]!r} does not fit its weight")
            scale = scale.reshape([-1 if a == axis else 1 for a in range(stored.ndim)])
        return _Weight((stored.astype(np.float64) - middle) * scale, scale)


_PASSED = ("Cast", "Clip", "DequantizeLinear", "QuantizeLinear", "Relu")


def _same_limits(name: str, plain: _Path, rounded: _Path) -> None:
    slack = 0.51 * rounded.step
    for wanted, found, of_nodes, what in (
        (plain.low, rounded.low, rounded.lowest, "lower"),
        (plain.high, rounded.high, rounded.highest, "upper"),
    ):
        if np.isfinite(wanted):
            near = slack + (_ROUNDING if rounded.step else _HALF_ROUNDING) * abs(wanted)
            if not abs(found - wanted) <= near:
                raise _Odd(f"the {what} limit of {name!r} is {found:g}, not {wanted:g}")
        elif np.isfinite(of_nodes):
            raise _Odd(f"{name!r} has the {what} limit {of_nodes:g}")


def _same_weight(name: str, plain: _Weight | None, rounded: _Weight | None, *, exact: bool) -> None:
    if plain is None or rounded is None:
        raise _Odd(f"{name!r} is a constant in one graph alone")
    old, new = plain.values, rounded.values
    if old.shape != new.shape:
        raise _Odd(f"weight {name!r} has the shape {new.shape}, not {old.shape}")
    if exact:
        if old.dtype != new.dtype or not np.array_equal(_bits(old), _bits(new)):
            raise _Odd(f"weight {name!r} is not the same bit for bit")
        return
    if old.dtype.kind != "f":
        if old.dtype != new.dtype or not np.array_equal(old, new):
            raise _Odd(f"{name!r} is not what it was")
        return
    wide, found = old.astype(np.float64), new.astype(np.float64)
    same = (wide == found) | (np.isnan(wide) & np.isnan(found))  # infinite ones, too
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0, np.abs(wide - found))
    if rounded.steps is not None:
        allowed = _HALF_STEP * rounded.steps + _ROUNDING * np.abs(wide)
    elif new.dtype == np.float16:
        allowed = _HALF_ROUNDING * np.abs(wide) + _HALF_SMALLEST
    else:
        allowed = np.zeros(())
    if not (gap <= allowed).all():
        worst = float(gap[~(gap <= allowed)].max())
        raise _Odd(f"weight {name!r} is {worst:.2g} off, which is more than rounding")


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Its bytes, not copied where they are in order."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _check_steps(
    left: _Graph, old: onnx.NodeProto, right: _Graph, new: onnx.NodeProto, name: str
) -> None:
    """Steps of weights are as fine as their bits allow, and those of a bias the products of its
    neighbours', which integer operators take them to be.

    Raises:
        _Odd: One is not.
    """
    for place, (before, after) in enumerate(zip(old.input[:2], new.input[:2], strict=True)):
        weight, plain = right.path(after).weight, left.path(before).weight
        if weight is None or weight.steps is None or plain is None:
            continue
        step, coarse = _steps(plain, weight)
        if place == 1 and new.input[2:3] and new.input[2]:
            bias, truth = right.path(new.input[2]).weight, left.path(old.input[2]).weight
            if bias is not None and bias.steps is not None and truth is not None:
                given = np.broadcast_to(bias.steps, bias.values.shape)
                wanted = right.path(new.input[0]).step * step
                if not np.allclose(given, wanted, rtol=1e-4, atol=0):
                    raise _Odd(f"the bias of {name!r} has not the steps of its weight")
                if coarse.shape == given.shape:  # wider where the bias would not fit otherwise
                    coarse = coarse & (given > _BIAS * np.abs(truth.values))
        if coarse.any():
            raise _Odd(f"the weight of {name!r} has coarser steps than its bits ask for")


def _steps(plain: _Weight, weight: _Weight) -> tuple[Values, BoolArray]:
    """Steps of a weight by channel, and which are coarser than its bits allow."""
    assert weight.steps is not None
    values = np.abs(plain.values.astype(np.float64))
    along = [axis for axis, length in enumerate(weight.steps.shape) if length > 1]
    others = tuple(axis for axis in range(values.ndim) if axis not in along)
    largest = values.max(axis=others, initial=0)
    step = np.broadcast_to(weight.steps, values.shape).max(axis=others, initial=0)
    return step, np.asarray(step > np.where(largest > 0, _COARSEST * largest, 1))
