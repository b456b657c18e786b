"""Sites: the activation tensors that take a bound, and those that do not, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from mmbm_onnx.graph import channels
from mmbm_onnx.graph.gates import clip_limits, why_gate, why_not_relu6
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.scopes import Scope, outermost
from mmbm_onnx.graph.walk import (
    FLOATS,
    RUNTIME_DOMAINS,
    STANDARD_DOMAINS,
    UNOPTIMIZED,
    ancestors,
    attribute,
    graphs,
    shape_of,
    tensors,
)
from mmbm_onnx.graph.written_out import WrittenOut, written_out
from mmbm_onnx.types import ACTIVATIONS, Site, Uncovered

_LIMITED = frozenset({"HardSigmoid", "Sigmoid", "Softsign", "Tanh"})


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
    """Find every activation whose output can be bounded: see ``types.ACTIVATIONS``.

    Those that are written out in several nodes are found by their last one (see ``written_out``).
    Looks into subgraphs too. Activations inside local functions are reported as uncovered: see
    ``functions.inline_activation_functions``.

    Args:
        proto: A checked model; not changed.
        logits: Name of the logits tensor. When given, activations it does not depend on, and the
            logits themselves, are uncovered.
    """
    model = infer(proto)
    search = _Search(model, logits)
    scope = outermost(model)
    channels.start(scope)
    search.walk(scope)
    search.uncovered.extend(_in_functions(model))
    return SiteReport(tuple(search.sites), tuple(search.uncovered))


class _Search:
    """One walk over a model, in the order in which its nodes run."""

    def __init__(self, model: onnx.ModelProto, logits: str | None) -> None:
        self.sites: list[Site] = []
        self.uncovered: list[Uncovered] = []
        self._logits = logits
        self._needed = ancestors(model.graph, [logits]) if logits else None
        self._element = _only_float_type(model)
        counts = Counter(
            name for _, graph in graphs(model.graph) for node in graph.node for name in node.output
        )
        self._repeated = {name for name, count in counts.items() if count > 1}

    def walk(self, scope: Scope) -> None:
        composed = written_out(scope)
        for node in scope.graph.node:
            for inner in scope.inner(node):
                self.walk(inner)
            channels.follow(node, scope)
            if node.domain in STANDARD_DOMAINS and node.output and node.output[0]:
                self._visit(node, scope, composed)
            elif node.domain in RUNTIME_DOMAINS and _holds_activation(node):
                self._note(node, f"fused into another operator; {UNOPTIMIZED}")

    def _visit(self, node: onnx.NodeProto, scope: Scope, composed: WrittenOut) -> None:
        tensor = node.output[0]
        kind = composed.ends.get(tensor, node.op_type)
        if node.op_type in _LIMITED:
            self._note(node, "limited by its own form")
        elif kind in ACTIVATIONS:
            upper: float | None = None
            reason: str | None = None
            if kind == "Clip":
                limits = clip_limits(node, scope)
                reason = why_not_relu6(node, limits, scope)
                upper = limits[1] if limits else None
            elif kind == "Relu":
                reason = why_gate(node, scope)
            if tensor in composed.inside:
                reason = reason or f"part of a {composed.inside[tensor]} that is written out"
            reason = reason or self._why_not(node, scope)
            if reason:
                self._note(node, reason)
            else:
                self.sites.append(self._site(node, kind, scope, upper))
        elif (
            tensor not in composed.inside
            and (why := _unlimited(node, scope))
            and not self._why_not(node, scope)
        ):
            self._note(node, why)

    def _note(self, node: onnx.NodeProto, reason: str) -> None:
        self.uncovered.append(Uncovered(node.output[0], node.op_type, reason))

    def _element_type(self, node: onnx.NodeProto, scope: Scope) -> int:
        for name in (node.output[0], node.input[0]):
            kind = scope.types.get(name)
            if kind is not None and kind.tensor_type.elem_type:
                return kind.tensor_type.elem_type
        return self._element

    def _why_not(self, node: onnx.NodeProto, scope: Scope) -> str | None:
        tensor = node.output[0]
        element = self._element_type(node, scope)
        if not element:
            return "its element type cannot be told"
        if element not in FLOATS:
            return "its element type is not floating point"
        if scope.is_fixed(tensor):
            return "it depends on no input"
        if tensor in self._repeated:
            return "its tensor name is used in several subgraphs"
        if not scope.runs_once:
            return f"inside {scope.name}, which may run many times"
        if tensor == self._logits:
            return "it carries the logits"
        if self._needed is not None and tensor not in self._needed:
            return "the logits do not depend on it"
        return None

    def _site(self, node: onnx.NodeProto, kind: str, scope: Scope, upper: float | None) -> Site:
        tensor = node.output[0]
        shape = shape_of(scope.types.get(tensor))
        if shape is None:  # an activation keeps the shape of its input
            shape = shape_of(scope.types.get(node.input[0]))
        axis = channels.channel_axis(tensor, scope)
        return Site(
            tensor=tensor,
            kind=kind,
            dtype=onnx.helper.tensor_dtype_to_np_dtype(self._element_type(node, scope)),
            rank=None if shape is None else len(shape),
            channel_axis=axis,
            channels=None if axis is None else channels.length(tensor, axis, scope),
            upper=upper,
            scope=scope.name,
            written_out=None if kind == node.op_type else node.op_type,
        )


def _only_float_type(model: onnx.ModelProto) -> int:
    """The floating-point type of all inputs and weights, 0 when there are several."""
    found = {tensor.data_type for tensor in tensors(model) if tensor.data_type in FLOATS}
    found |= {
        info.type.tensor_type.elem_type
        for info in model.graph.input
        if info.type.tensor_type.elem_type in FLOATS
    }
    return found.pop() if len(found) == 1 else 0


def _holds_activation(node: onnx.NodeProto) -> bool:
    """Whether an operator of ONNX Runtime's does the work of an activation that takes bounds."""
    fused = attribute(node, "activation")
    return fused is not None or any(name in node.op_type for name in ("Gelu", "Relu", "Silu"))


def _unlimited(node: onnx.NodeProto, scope: Scope) -> str | None:
    """Why an operator that bends like an activation, and grows without limit, takes no bound."""
    if node.op_type == "Max":
        free = [name for name in node.input if not scope.is_fixed(name)]
        if any(scope.filled(name) == 0 for name in node.input):
            return "keeps a norm, a variance or a gate from falling below 0"
        return "a maximum of several tensors" if len(free) > 1 else None
    if node.op_type in ("RNN", "GRU", "LSTM"):
        names = {entry.decode(errors="replace") for entry in attribute(node, "activations", [])}
        inside = sorted(names & {*ACTIVATIONS, "ScaledTanh", "Affine"})
        return f"its {inside[0]} is inside the operator" if inside else None
    return None


def _in_functions(model: onnx.ModelProto) -> Iterator[Uncovered]:
    for function in model.functions:
        name = f"{function.domain}::{function.name}"
        body = onnx.GraphProto(node=function.node)
        for _, graph in graphs(body):
            for node in graph.node:
                if node.domain not in STANDARD_DOMAINS or not node.output:
                    continue
                if node.op_type in ACTIVATIONS:
                    reason = f"inside the local function {name}; inline it first"
                    yield Uncovered(node.output[0], node.op_type, reason)
