"""Telling a ReLU6 from a gate.

A hard sigmoid is ``clip(x + 3, 0, 6) / 6`` and a hard swish ``x * clip(x + 3, 0, 6) / 6``
(arXiv 1905.02244, section 5.2): exporters write them out with the very Clip that a ReLU6 is.
Bounding a gate would change the network's arithmetic, so whatever may be one is left alone.
"""

from __future__ import annotations

import math

import onnx

from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import ancestors, attribute

Limits = tuple[float | None, float | None]

_GATE = "a gate (hard-sigmoid or hard-swish written out), limited by its own form"


def clip_limits(node: onnx.NodeProto, scope: Scope) -> Limits | None:
    """Lower and upper limit of a Clip, None for one that is not set; None when not constant."""
    if attribute(node, "min") is not None or attribute(node, "max") is not None:
        return _finite(attribute(node, "min")), _finite(attribute(node, "max"))
    limits: list[float | None] = []
    for name in (*node.input[1:3], "", "")[:2]:
        if not name:
            limits.append(None)
            continue
        number = scope.number(name)
        if number is None:
            return None
        limits.append(_finite(number))
    return limits[0], limits[1]


def _finite(number: float | None) -> float | None:
    """None for an infinite limit, and for the largest float32, the default of old Clips."""
    if number is None or math.isinf(number) or abs(number) >= 3.4028234e38:
        return None
    return float(number)


def why_not_relu6(node: onnx.NodeProto, limits: Limits | None, scope: Scope) -> str | None:
    """Why a Clip takes no bound, or None when it is a ReLU or ReLU6.

    Args:
        node: The Clip.
        limits: As ``clip_limits`` found them.
        scope: The graph it lives in.
    """
    if limits is None:
        return "its limits are not constants"
    low, high = limits
    if low != 0:
        return "a Clip whose lower limit is not 0"
    if high is not None and not high > 0:
        return "a Clip whose upper limit is not above 0"
    if high is None:
        return why_gate(node, scope)
    if high <= 1 or _adds_scalar(node, scope) or _scaled_to_one(node, high, scope):
        return _GATE
    return _GATE if _multiplies_its_source(node, scope) else None


def why_gate(node: onnx.NodeProto, scope: Scope) -> str | None:
    """Why a Relu takes no bound: it is the lower half of a gate, ``min(relu(x + 3), 6)``."""
    readers = scope.readers(node.output[0])
    if readers and all(_limits_to_one(reader, scope) for reader in readers):
        return _GATE
    if not readers or not _adds_scalar(node, scope):
        return None
    return _GATE if all(_limits_from_above(reader, scope) for reader in readers) else None


def is_upper_half(node: onnx.NodeProto, scope: Scope) -> bool:
    """Whether a Min is the upper half of a gate, such as ``max(min(x + 3, 6), 0)``."""
    if node.op_type != "Min" or not _limits_from_above(node, scope):
        return False
    return _limits_to_one(node, scope) or _adds_scalar(node, scope)


def _limits_to_one(node: onnx.NodeProto, scope: Scope) -> bool:
    numbers = [scope.filled(name) for name in node.input] if node.op_type == "Min" else []
    return any(number is not None and number <= 1 for number in numbers)


def _limits_from_above(node: onnx.NodeProto, scope: Scope) -> bool:
    if node.op_type == "Min":
        return any(scope.filled(name) is not None for name in node.input)
    if node.op_type == "Clip":
        limits = clip_limits(node, scope)
        return limits is not None and limits[1] is not None
    return False


def _adds_scalar(node: onnx.NodeProto, scope: Scope) -> bool:
    makers = [maker for name in node.input if (maker := scope.maker(name)) is not None]
    sums = [maker for maker in makers if maker.op_type in ("Add", "Sub", "Sum")]
    return any(scope.number(name) is not None for maker in sums for name in maker.input)


def _scaled_to_one(node: onnx.NodeProto, high: float, scope: Scope) -> bool:
    for reader in scope.readers(node.output[0]):
        if reader.op_type not in ("Mul", "Div"):
            continue
        for name in reader.input:
            number = scope.filled(name)
            if number is not None and reader.op_type == "Mul":
                number *= high * high  # times 1/6 is what over 6 is
            if number is not None and math.isclose(number, high, rel_tol=1e-2):
                return True
    return False


def _multiplies_its_source(node: onnx.NodeProto, scope: Scope) -> bool:
    behind: set[str] | None = None
    for reader in scope.readers(node.output[0]):
        if reader.op_type != "Mul":
            continue
        if behind is None:
            behind = ancestors(scope.graph, [node.input[0]])
        if any(name in behind and not scope.is_fixed(name) for name in reader.input):
            return True
    return False
