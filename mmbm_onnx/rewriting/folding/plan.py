"""Which bounds are folded, and by what every channel of every value is then smaller."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmbm_onnx.graph.walk import producers
from mmbm_onnx.rewriting.folding.factors import ONE
from mmbm_onnx.rewriting.folding.rules import RULES
from mmbm_onnx.rewriting.folding.walk import Graph, Walk
from mmbm_onnx.types import Bounds, IntArray, Site

_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Clip")
_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization")
_TRANSPARENT = ("Add", "Sub", "Identity", "Dropout")
_MOST_UNEVEN = 1e6
"""Largest over smallest bound of a site that is folded: more would strain float32."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is folded.

    Attributes:
        walk: The factors.
        limits: The one limit of every folded site's channels, after scaling.
        kept: The bounds of the others, after scaling.
    """

    walk: Walk
    scales: npt.NDArray[np.float64]
    limits: Mapping[str, npt.NDArray[np.float32]]
    kept: Mapping[str, npt.NDArray[np.float32]]

    def scale(self, factors: IntArray | None) -> npt.NDArray[np.float64]:
        """By what values with these factors are smaller, in the shape of the factors."""
        if factors is None:
            return np.ones((), np.float64)
        return np.asarray(self.scales[self.walk.factors.roots(factors)])


def make_plan(
    graph: Graph,
    sites: Sequence[Site],
    bounds: Bounds,
    *,
    depthwise: bool,
    unscaled: Collection[str] = (),
) -> Plan:
    """Fold as many bounds as fit together.

    A bound is folded into the weights that make the activation and those that read it. Where the
    activation comes from no weights, but from a sum, say, a depthwise convolution of size 1 may
    stand between it and its Clip, which takes the value into another scale; ONNX Runtime keeps
    such a pair in the layout that it computes convolutions in, which a Clip or Min alone is not.

    Args:
        graph: The model.
        sites: Its activations.
        bounds: Their bounds.
        depthwise: Whether depthwise convolutions may be put in.
        unscaled: Values, besides the graph's outputs, that stay what they were.
    """
    bounded = {site.tensor: site for site in sites if site.tensor in bounds}
    fold = {name: site for name, site in bounded.items() if _may_fold(site, bounds[name])}
    renewed = {name for name, site in fold.items() if depthwise and _needs_convolution(graph, site)}
    while True:
        passing = _passing(bounded, bounds, fold)
        walk = Walk(graph, bounded, renewed, passing, unscaled).run(RULES)
        claimed: dict[int, float] = {}
        limits: dict[str, npt.NDArray[np.float32]] = {}
        refused = []
        for name, site in fold.items():
            found = _claim(walk, site, bounds[name], claimed)
            if found is None:
                refused.append(name)
            else:
                limits[name] = found
        if not refused:
            break
        for name in refused:
            if depthwise and name not in renewed and _takes_convolution(fold[name]):
                renewed.add(name)
            else:
                renewed.discard(name)
                del fold[name]
    scales = np.ones(len(walk.factors))
    scales[list(claimed)] = list(claimed.values())
    plan = Plan(walk, scales, limits, {})
    kept = {
        name: _rescaled(plan, bounded[name], bounds[name]) for name in bounded if name not in limits
    }
    return Plan(walk, scales, limits, kept)


def _may_fold(site: Site, bound: npt.NDArray[np.float32]) -> bool:
    return (
        bound.ndim == 1
        and site.kind in _HOMOGENEOUS
        and site.written_out is None
        and site.scope == ""
        and site.dtype == np.float32
        and float(bound.max()) <= _MOST_UNEVEN * float(bound.min())
    )


def _passing(
    bounded: Mapping[str, Site], bounds: Bounds, fold: Mapping[str, Site]
) -> frozenset[str]:
    """Sites whose bounded value may be scaled by channel, as the bound then is."""
    return frozenset(
        name
        for name, site in bounded.items()
        if name in fold or (bounds[name].ndim == 1 and site.kind != "Clip")
    )


def _takes_convolution(site: Site) -> bool:
    return site.rank == 4 and site.channel_axis == 1 and site.channels is not None


def _needs_convolution(graph: Graph, site: Site) -> bool:
    """Whether a runtime could not fuse a Clip into what makes the activation."""
    if not _takes_convolution(site):
        return False
    if site.kind == "LeakyRelu":
        return True  # is itself what would be fused
    made_by = producers(graph.proto.graph)
    node = made_by.get(made_by[site.tensor].input[0])
    while node is not None and node.op_type in _TRANSPARENT:
        inputs = [name for name in node.input if name and name not in graph.constants]
        if len(inputs) != 1:
            return True
        node = made_by.get(inputs[0])
    return node is None or node.op_type not in _WEIGHTED


def _claim(
    walk: Walk, site: Site, bound: npt.NDArray[np.float32], claimed: dict[int, float]
) -> npt.NDArray[np.float32] | None:
    """Set the factors of a site to its bounds over one limit, if they are free; the limit."""
    found = walk.of.get(site.tensor)
    if found is None:
        return None
    roots = walk.factors.roots(found.ravel())
    if len(roots) != len(bound) or ONE in roots or len(set(roots.tolist())) != len(roots):
        return None
    if any(root in claimed for root in roots.tolist()):
        return None
    limits = bound.astype(np.float64)
    if site.upper is not None:
        limits = np.minimum(limits, site.upper)
    # One of them: no rounding that another machine might do otherwise (see ``verify``).
    common = np.sort(limits)[len(limits) // 2].astype(np.float32)
    claimed.update(zip(roots.tolist(), (limits / float(common)).tolist(), strict=True))
    return np.asarray(common, np.float32)


def _rescaled(plan: Plan, site: Site, bound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    factors = plan.walk.of.get(site.tensor)
    scale = plan.scale(None if factors is None else factors.ravel())
    return bound if (scale == 1).all() else np.asarray(bound / scale, np.float32)
