"""Evidence (see ``evidence``) as nodes of the detector graph; operators of opset 9 and up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.graph.walk import shape_of
from mmbm_onnx.rewriting.distance_nodes import View, distances
from mmbm_onnx.rewriting.evidence import SMALLEST_DISTANCE, Evidence
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.types import Site

_MOST_SITES = 6
_BLOCK = 16  # channels that ONNX Runtime keeps together, or twice that
_MOST_POOLED = 3  # axes that ONNX Runtime pools over


def watched_sites(sites: Sequence[Site], types: Mapping[str, onnx.TypeProto]) -> list[Site]:
    """Sites of the main graph whose channels are known, at most 6, evenly over the depth: of each
    stretch of it the one with the fewest values, since reading them takes time.

    Args:
        sites: In graph order.
        types: Of their tensors.
    """
    known = [site for site in sites if not site.scope and _axes(site) is not None]
    if len(known) <= _MOST_SITES:
        return known
    stretches = np.array_split(np.arange(len(known)), _MOST_SITES)
    sizes = [_values(types.get(site.tensor)) for site in known]
    # The last of equals: deeper ones tell more of the class.
    return [known[min(reversed(places), key=lambda place: sizes[place])] for places in stretches]


def _values(kind: onnx.TypeProto | None) -> float:
    """Values of one sample in a tensor; infinity where its shape or an axis is not known."""
    shape = None if kind is None else shape_of(kind)
    if shape is None:
        return np.inf
    return float(np.prod([np.inf if axis is None else axis for axis in shape[1:]]))


def summarize(ops: Operators, tensor: gs.Tensor, site: Site) -> gs.Tensor:
    """Mean and maximum of each channel over positions, float32 ``(views, n, channels)``.

    A site without positions has one view, its value.
    """
    name = f"summary/{site.tensor}"
    pooled = [
        view if rank == 2 else ops.add("Flatten", view, name=f"{name}/flat_{index}", axis=1)
        for index, (view, rank) in enumerate(_pooled(ops, tensor, site))
    ]
    views = [ops.unsqueeze(view, 0, f"{name}/view_{index}") for index, view in enumerate(pooled)]
    return views[0] if len(views) == 1 else ops.add("Concat", *views, name=name, axis=0)


def _pooled(ops: Operators, tensor: gs.Tensor, site: Site) -> list[tuple[gs.Tensor, int]]:
    """The views of a site, ``(n, channels)`` or with axes of length 1 behind, and their ranks."""
    name, axes = f"summary/{site.tensor}", _axes(site)
    assert axes is not None
    if site.dtype != np.float32:
        tensor = ops.cast(tensor, TensorProto.FLOAT, f"{name}/float")
    if not axes:
        return [(tensor, 2)]
    if site.channel_axis == 1 and len(axes) <= _MOST_POOLED:
        # In ONNX Runtime these keep the blocked layout of the convolution before them.
        return [
            (ops.add(op, tensor, name=f"{name}/{op}"), 2 + len(axes))
            for op in ("GlobalAveragePool", "GlobalMaxPool")
        ]
    return [
        (ops.over(op, tensor, axes, f"{name}/{op}", keepdims=0), 2)
        for op in ("ReduceMean", "ReduceMax")
    ]


def score(ops: Operators, evidence: Evidence, unusual: gs.Tensor, margin: gs.Tensor) -> gs.Tensor:
    """The score ``(n, 1)``, float32, as ``Evidence.scores`` computes it.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        unusual: What the activations alone give, ``(n,)``: see ``unusual``.
        margin: Margin difference ``(n, 1)``, float32.
    """
    column = ops.unsqueeze(unusual, 1, "unusual_column")
    weight = ops.constant("score/per_logit", evidence.margin, np.float32)
    constant = ops.constant("score/constant", evidence.constant, np.float32)
    both = ops.add("Add", column, ops.add("Mul", margin, weight, name="score/margin"),
                   name="score/both")  # fmt: skip
    return ops.add("Add", both, constant, name="score")


def first_score(
    ops: Operators, evidence: Evidence, unusual: gs.Tensor, logits: gs.Tensor, classes: int
) -> gs.Tensor:
    """The first score ``(n,)``, as ``Evidence.firsts`` computes it; no number where a logit is
    none.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        unusual: What the activations alone give, ``(n,)``.
        logits: The original's, float32 ``(n, classes)``.
        classes: Number of classes.
    """
    two, _ = ops.top(logits, 2, "first/largest")
    per_logit = evidence.first_margin
    weights = ops.constant("first/per_logit", [per_logit, -per_logit], np.float32)
    # The largest may pass over what is no number; times nothing, it stays none.
    nothing = ops.constant("first/nothing", np.zeros(classes), np.float32)
    return ops.add(
        "Sum",
        unusual,
        ops.add("MatMul", two, weights, name="first/margin"),
        ops.add("MatMul", logits, nothing, name="first/no_number"),
        ops.constant("first/constant", evidence.first_constant, np.float32),
        name="first",
    )


def unusual(
    ops: Operators,
    evidence: Evidence,
    values: Mapping[str, gs.Tensor],
    sites: Mapping[str, Site],
    suspected: gs.Tensor,
    classes: int,
) -> gs.Tensor:
    """What the activations alone give, ``(n,)``, float32.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        values: The activation at each of its sites.
        sites: What is known of them.
        suspected: The original's decision, int64 ``(n,)``.
        classes: Number of classes.
    """
    found, views = _distances(ops, evidence, values, sites)
    far = ops.constant("far", np.finfo(np.float32).max, np.float32)
    every = ops.constant("classes", np.arange(classes)[None], np.int64)
    is_own = ops.add("Equal", ops.unsqueeze(suspected, 1, "decided"), every, name="is_own")
    # Twice over the classes, all but the own one put far away, then the own one: nearest are the
    # own class and the nearest other.
    side = ops.constant("sides", np.reshape([True, False], (2, 1, 1, 1)), np.bool_)
    is_left_out = ops.add("Xor", is_own, side, name="is_left_out")
    of_sides = ops.add("Where", is_left_out, far, found, name="of_sides")
    nearest = ops.over("ReduceMin", of_sides, [3], "nearest", keepdims=0)
    least = ops.constant("smallest_distance", SMALLEST_DISTANCE, np.float32)
    logarithms = ops.add("Log", ops.add("Max", nearest, least, name="not_too_small"),
                         name="logarithms")  # fmt: skip
    places = _places(evidence, views)
    weights = np.concatenate([evidence.own[places], -evidence.other[places]])
    rows = ops.constant("rows", [len(weights), -1], np.int64)
    return ops.add(
        "MatMul",
        ops.constant("weights", weights, np.float32),
        ops.add("Reshape", logarithms, rows, name="logarithms_in_rows"),
        name="unusual",
    )


def _distances(
    ops: Operators,
    evidence: Evidence,
    values: Mapping[str, gs.Tensor],
    sites: Mapping[str, Site],
) -> tuple[gs.Tensor, list[View]]:
    """Squared distances ``(views, n, classes)``, and what views those are."""
    # Those that are joined as they are leave the blocked layout of convolutions together.
    alike: dict[tuple[int, bool], list[tuple[View, gs.Tensor]]] = defaultdict(list)
    for site in evidence.sites:
        pooled = _pooled(ops, values[site.tensor], sites[site.tensor])
        for index, (tensor, rank) in enumerate(pooled):
            view = View(site, index)
            alike[rank, view.channels % _BLOCK == 0].append((view, tensor))
    views, parts = [], []
    for index, ((rank, _), items) in enumerate(alike.items()):
        items.sort(key=lambda item: item[0].channels)
        views += [view for view, _ in items]
        part = ops.concat([tensor for _, tensor in items], 1, f"views_{index}")
        if rank > 2:
            part = ops.add("Flatten", part, name=f"views_{index}_flat", axis=1)
        parts.append(part)
    return distances(ops, ops.concat(parts, 1, "views"), views), views


def _places(evidence: Evidence, views: Sequence[View]) -> list[int]:
    """Where these views are in the order of the evidence."""
    order = [(site.tensor, i) for site in evidence.sites for i in range(len(site.scale))]
    return [order.index((view.site.tensor, view.index)) for view in views]


def _axes(site: Site) -> list[int] | None:
    """Axes of positions: all but batch and channels; None where they are not known."""
    if site.rank is None or site.channel_axis is None:
        return None
    return [axis for axis in range(1, site.rank) if axis != site.channel_axis]
