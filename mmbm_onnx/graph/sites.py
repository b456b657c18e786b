"""Sites: the activation tensors that take a bound, and those that do not, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from mmbm_onnx.graph.channels import channel_axis
from mmbm_onnx.graph.walk import (
    STANDARD_DOMAINS,
    ancestors,
    attribute,
    constant_values,
    graphs,
    producers,
    shape_of,
    value_types,
)
from mmbm_onnx.types import Site, Uncovered

_FLOATS = (
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)
_LIMITED = frozenset({"HardSigmoid", "Sigmoid", "Softsign", "Tanh"})
_OTHER_ACTIVATIONS = frozenset(
    {
        "Celu",
        "Elu",
        "Gelu",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Selu",
        "Softplus",
        "Swish",
        "ThresholdedRelu",
    }
)
_LOOPS = ("Loop/", "Scan/", "SequenceMap/")
_GATE = "a gate (hard-sigmoid or hard-swish written out), limited by its own form"


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What ``find_sites`` found, in graph order.

    Attributes:
        sites: Activations that take a bound.
        uncovered: Activations that do not, each with the reason.
    """

    sites: tuple[Site, ...]
    uncovered: tuple[Uncovered, ...]


def find_sites(proto: onnx.ModelProto, *, logits: str | None = None) -> SiteReport:
    """Find every Relu, and every Clip used as ReLU6, whose output can be bounded.

    Looks into subgraphs too. Activations inside local functions are reported as uncovered: see
    ``functions.inline_activation_functions``.

    Args:
        proto: A checked model; not changed.
        logits: Name of the logits tensor. When given, activations it does not depend on, and the
            logits themselves, are uncovered.
    """
    types = _inferred_types(proto)
    needed = ancestors(proto.graph, [logits]) if logits else None
    outer: dict[str, onnx.NodeProto] = {}
    repeated = _repeated_outputs(proto)
    sites: list[Site] = []
    uncovered: list[Uncovered] = []
    for scope, graph in graphs(proto.graph):
        outer.update(producers(graph))
        types.update({name: kind for name, kind in value_types(graph).items() if scope})
        constants = constant_values(graph)
        for node in graph.node:
            if node.domain not in STANDARD_DOMAINS or not node.output:
                continue
            if node.op_type in _LIMITED:
                _note(uncovered, node, "limited by its own form")
                continue
            if node.op_type in _OTHER_ACTIVATIONS:
                _note(uncovered, node, "only Relu and Clip used as ReLU6 take bounds")
                continue
            if node.op_type not in ("Relu", "Clip"):
                continue
            upper: float | None = None
            if node.op_type == "Clip":
                limits = _clip_limits(node, constants)
                reason = _why_not_relu6(node, limits, outer, constants)
                if reason:
                    _note(uncovered, node, reason)
                    continue
                upper = limits[1] if limits else None
            reason = _why_not(node, scope, types, needed, logits, repeated)
            if reason:
                _note(uncovered, node, reason)
                continue
            sites.append(_site(node, scope, upper, types, outer))
    for function in proto.functions:
        for node in function.node:
            if node.op_type == "Relu":
                name = f"{function.domain}::{function.name}"
                _note(uncovered, node, f"inside the local function {name}; inline it first")
    return SiteReport(tuple(sites), tuple(uncovered))


def _note(uncovered: list[Uncovered], node: onnx.NodeProto, reason: str) -> None:
    uncovered.append(Uncovered(node.output[0], node.op_type, reason))


def _inferred_types(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    types = value_types(proto.graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # types that cannot be inferred are unknown, which every reader handles
        return types
    for name, kind in value_types(inferred.graph).items():
        types[name] = kind
    for _, graph in graphs(inferred.graph):
        types.update({info.name: info.type for info in graph.value_info})
    return types


def _repeated_outputs(proto: onnx.ModelProto) -> set[str]:
    counts: Counter[str] = Counter()
    for _, graph in graphs(proto.graph):
        for node in graph.node:
            counts.update(name for name in node.output if name)
    return {name for name, count in counts.items() if count > 1}


def _why_not(
    node: onnx.NodeProto,
    scope: str,
    types: Mapping[str, onnx.TypeProto],
    needed: set[str] | None,
    logits: str | None,
    repeated: set[str],
) -> str | None:
    tensor = node.output[0]
    kind = types.get(tensor) or types.get(node.input[0])
    if kind is not None and kind.tensor_type.elem_type not in (0, *_FLOATS):
        return "its element type is not floating point"
    if tensor in repeated:
        return "its tensor name is used in several subgraphs"
    if any(part in f"{scope}/" for part in _LOOPS):
        return "inside a loop body, which runs once per step"
    if tensor == logits:
        return "it carries the logits"
    if needed is not None and tensor not in needed:
        return "the logits do not depend on it"
    return None


def _site(
    node: onnx.NodeProto,
    scope: str,
    upper: float | None,
    types: Mapping[str, onnx.TypeProto],
    made_by: Mapping[str, onnx.NodeProto],
) -> Site:
    tensor = node.output[0]
    kind = types.get(tensor) or types.get(node.input[0])
    shape = shape_of(kind)
    rank = None if shape is None else len(shape)
    axis = channel_axis(tensor, rank, made_by, types)
    element = kind.tensor_type.elem_type if kind is not None else 0
    dtype: np.dtype[Any] = (
        onnx.helper.tensor_dtype_to_np_dtype(element) if element else np.dtype(np.float32)
    )
    channels = None if shape is None or axis is None else shape[axis]
    op = "Clip" if node.op_type == "Clip" else "Relu"
    return Site(tensor, op, dtype, rank, axis, channels, upper, scope)  # type: ignore[arg-type]


def _clip_limits(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> tuple[float | None, float | None] | None:
    """Lower and upper limit of a Clip, None for one that is not set; None when not constant."""
    if attribute(node, "min") is not None or attribute(node, "max") is not None:
        return attribute(node, "min"), attribute(node, "max")
    limits: list[float | None] = []
    for name in (*node.input[1:3], "", "")[:2]:
        if not name:
            limits.append(None)
        elif name in constants:
            limits.append(float(numpy_helper.to_array(constants[name]).reshape(-1)[0]))
        else:
            return None
    return limits[0], limits[1]


def _why_not_relu6(
    node: onnx.NodeProto,
    limits: tuple[float | None, float | None] | None,
    made_by: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> str | None:
    if limits is None:
        return "its limits are not constants"
    low, high = limits
    if low != 0:
        return "a Clip whose lower limit is not 0"
    if high is not None and high <= 1:
        return _GATE if high > 0 else "a Clip whose upper limit is not above 0"
    before = made_by.get(node.input[0])
    if before is not None and before.op_type == "Add" and _has_scalar(before.input, constants):
        return _GATE
    return None


def _has_scalar(names: Iterable[str], constants: Mapping[str, onnx.TensorProto]) -> bool:
    return any(int(np.prod(constants[name].dims)) == 1 for name in names if name in constants)
