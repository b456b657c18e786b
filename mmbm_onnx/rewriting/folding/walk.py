"""One walk through a graph: by which factors each value may be scaled, and what absorbs them.

A value's factors are an array of the value's rank: an axis has its full length where factors differ
along it, or length 1 where they do not; the batch axis has length 1. Values without an entry are
not scaled. A node that is in no rule leaves what it reads unscaled, so that what is not known is
never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.graph.walk import (
    STANDARD_DOMAINS,
    constant_values,
    consumed,
    inner_graphs,
    shape_of,
    value_types,
)
from mmbm_onnx.rewriting.folding.factors import Factors
from mmbm_onnx.types import IntArray, Site

Found = Mapping[str, IntArray | None] | None
"""Factors of a node's outputs (None for one that is not scaled), or None where the node cannot take
scaled values."""
Rule = Callable[[onnx.NodeProto, int, "Walk"], Found]
"""Of a node at a position, on a walk; what it has noted before it returns None is taken back."""


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A node whose weights take factors: what it reads is ``incoming`` times too small, and so will
    be, by ``outgoing``, what it makes.

    Attributes:
        incoming: Factors of the channels (or features) that it reads, ``(n,)``; None for 1.
        outgoing: Factors of those it makes, ``(m,)``.
    """

    incoming: IntArray | None
    outgoing: IntArray


@dataclass(frozen=True, slots=True)
class Graph:
    """What rules may know of the graph.

    Attributes:
        proto: The model.
        shapes: Tensor name to shape, None for an axis of any length.
        constants: Tensors of known value, by name.
    """

    proto: onnx.ModelProto
    shapes: Mapping[str, tuple[int | None, ...]]
    constants: Mapping[str, onnx.TensorProto]

    def values(self, name: str) -> npt.NDArray[np.generic] | None:
        """Value of a constant, or None."""
        return to_array(self.constants[name]) if name in self.constants else None

    def integers(self, name: str) -> list[int] | None:
        """Value of a constant of integers, flat, or None."""
        found = self.values(name)
        return None if found is None else [int(value) for value in found.ravel()]


def read_graph(proto: onnx.ModelProto) -> Graph:
    """Shapes and constants of the main graph."""
    types = value_types(infer(proto).graph)
    shapes = {name: shape_of(kind) for name, kind in types.items()}
    inputs = {info.name for info in proto.graph.input}
    constants = {
        name: tensor
        for name, tensor in constant_values(proto.graph).items()
        if name not in inputs  # else it could be replaced at run time
    }
    for node in proto.graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return Graph(
        proto, {name: shape for name, shape in shapes.items() if shape is not None}, constants
    )


@dataclass
class Walk:
    """What came out of a walk.

    Attributes:
        graph: What was walked through.
        sites: Activations with a bound, by tensor.
        renewed: Those whose bounded value has factors of its own, since a convolution stands
            before the Clip.
        passing: Those that let factors pass.
        kept: Further values that stay what they were.
        factors: All factors.
        of: Those of each scaled value.
        before: Those of each renewed site's value before that convolution.
        absorbed: By position of the node.
        shifted: By position of an addition: which input is the constant, and the factors that it
            has to be divided by.
    """

    graph: Graph
    sites: Mapping[str, Site]
    renewed: Collection[str]
    passing: Collection[str]
    kept: Collection[str] = ()
    factors: Factors = field(default_factory=Factors)
    of: dict[str, IntArray] = field(default_factory=dict)
    before: dict[str, IntArray | None] = field(default_factory=dict)
    absorbed: dict[int, Absorbed] = field(default_factory=dict)
    shifted: dict[int, tuple[int, IntArray]] = field(default_factory=dict)

    def run(self, rules: Mapping[str, Rule]) -> Walk:
        """Walk through all nodes by these rules, by operator; returns itself."""
        for position, node in enumerate(self.graph.proto.graph.node):
            rule = rules.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
            found = None
            if rule is not None and not any(True for _ in inner_graphs(node)):
                found = rule(node, position, self)
            if found is None:
                self.unscaled(*consumed(node))
                self.absorbed.pop(position, None)
                self.shifted.pop(position, None)
            for name, factors in (found or {}).items():
                if factors is not None:
                    self.of[name] = factors
            for name in node.output:
                if name in self.sites:
                    self._at_site(self.sites[name])
        self.unscaled(*(info.name for info in self.graph.proto.graph.output), *self.kept)
        return self

    def unscaled(self, *names: str) -> None:
        """These values have to be what they were."""
        for name in names:
            if name in self.of:
                self.factors.fix(self.of[name])

    def _at_site(self, site: Site) -> None:
        name = site.tensor
        found = self.of.get(name)
        if name in self.renewed:
            if found is not None and not along(found, site.channel_axis):
                self.factors.fix(found)
                found = None  # one weight per channel cannot take what differs by position
            self.before[name] = found
            self.of[name] = self.factors.new((1, site.channels or 1, 1, 1))
        elif found is not None and (
            name not in self.passing or not along(found, site.channel_axis)
        ):
            self.factors.fix(found)


def along(factors: IntArray, axis: int | None) -> bool:
    """Whether factors differ along that axis at most."""
    return all(length == 1 or place == axis for place, length in enumerate(factors.shape))
