"""Evidence (see ``evidence``) as nodes of the detector graph; operators of opset 9 and up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.rewriting.evidence import SMALLEST_DISTANCE, Evidence, SiteDistances
from mmbm_onnx.rewriting.evidence_together import (
    MOST_TOGETHER,
    distances_together,
    size_together,
)
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.types import Site

_MOST_SITES = 16
_MOST_POOLED = 3  # axes that ONNX Runtime pools over


def watched_sites(sites: Sequence[Site]) -> list[Site]:
    """Sites of the main graph whose channels are known, at most 16, evenly over the depth.

    Args:
        sites: In graph order.
    """
    known = [site for site in sites if not site.scope and _axes(site) is not None]
    if len(known) <= _MOST_SITES:
        return known
    places = np.linspace(0, len(known) - 1, _MOST_SITES).round().astype(int)
    return [known[place] for place in places]


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
        unusual: What the activations alone give: see ``unusual``.
        margin: Margin difference ``(n, 1)``, float32.
    """
    return _with_margin(ops, unusual, margin, evidence.margin, evidence.constant, "score")


def first_score(
    ops: Operators, evidence: Evidence, unusual: gs.Tensor, margin: gs.Tensor
) -> gs.Tensor:
    """The first score ``(n, 1)``, as ``Evidence.firsts`` computes it, of the original's margin."""
    weights = evidence.first_margin, evidence.first_constant
    return _with_margin(ops, unusual, margin, *weights, "first_score")


def _with_margin(
    ops: Operators,
    unusual: gs.Tensor,
    margin: gs.Tensor,
    per_logit: float,
    constant: float,
    name: str,
) -> gs.Tensor:
    weight = ops.constant(f"{name}/per_logit", per_logit, np.float32)
    both = ops.add(
        "Add", unusual, ops.add("Mul", margin, weight, name=f"{name}/margin"), name=f"{name}/both"
    )
    return ops.add("Add", both, ops.constant(f"{name}/constant", constant, np.float32), name=name)


def unusual(
    ops: Operators,
    evidence: Evidence,
    values: Mapping[str, gs.Tensor],
    sites: Mapping[str, Site],
    is_suspected: gs.Tensor,
) -> gs.Tensor:
    """What the activations alone give, ``(n, 1)``, float32.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        values: The activation at each of its sites.
        sites: What is known of them.
        is_suspected: The original's decision as a mask ``(n, classes)``.
    """
    classes = evidence.sites[0].offsets.shape[2]
    if size_together(evidence) <= MOST_TOGETHER:
        found = distances_together(ops, evidence, _views(ops, evidence, values, sites))
    else:
        every = [
            _distances(ops, site, summarize(ops, values[site.tensor], sites[site.tensor]))
            for site in evidence.sites
        ]
        joined = ops.add("Concat", *every, name="all_distances", axis=0)
        found = ops.add("Transpose", joined, name="distances_of_rows", perm=[1, 0, 2])
    least = ops.constant("smallest_distance", SMALLEST_DISTANCE, np.float32)
    distances = ops.add("Max", found, least, name="distances")  # (n, views, classes)
    shape = ops.constant("mask_shape", [-1, 1, classes], np.int64)
    mask = ops.add("Reshape", is_suspected, shape, name="mask")
    zero = ops.constant("no_distance", 0, np.float32)
    far = ops.constant("far", np.finfo(np.float32).max, np.float32)
    of_own = ops.add("Where", mask, distances, zero, name="own")
    of_others = ops.add("Where", mask, far, distances, name="others")
    both = ops.add(
        "Concat",
        ops.over("ReduceSum", of_own, [2], "own_sum", keepdims=0),
        ops.over("ReduceMin", of_others, [2], "nearest", keepdims=0),
        name="own_and_other",
        axis=1,
    )
    logarithms = ops.add("Log", both, name="logarithms")  # (n, 2 views)
    weights = np.concatenate([evidence.own, -evidence.other])[:, None]
    return ops.add(
        "MatMul", logarithms, ops.constant("weights", weights, np.float32), name="unusual"
    )


def _views(
    ops: Operators,
    evidence: Evidence,
    values: Mapping[str, gs.Tensor],
    sites: Mapping[str, Site],
) -> tuple[gs.Tensor, list[tuple[int, int]]]:
    """All views of all sites side by side, ``(n, channels of all)``, and of each the places of its
    site and of the view there."""
    deep: list[gs.Tensor] = []
    flat: list[gs.Tensor] = []
    first: list[tuple[int, int]] = []
    last: list[tuple[int, int]] = []
    for place, site in enumerate(evidence.sites):
        pooled = _pooled(ops, values[site.tensor], sites[site.tensor])
        for view, (tensor, rank) in enumerate(pooled):
            if rank == 4:
                deep.append(tensor)
                first.append((place, view))
                continue
            name = f"view/{site.tensor}/{view}"
            flat.append(tensor if rank == 2 else ops.add("Flatten", tensor, name=name, axis=1))
            last.append((place, view))
    if deep:
        joined = deep[0] if len(deep) == 1 else ops.add("Concat", *deep, name="pooled", axis=1)
        flat.insert(0, ops.add("Flatten", joined, name="pooled_flat", axis=1))
    x = flat[0] if len(flat) == 1 else ops.add("Concat", *flat, name="views", axis=1)
    return x, [*first, *last]


def _distances(ops: Operators, site: SiteDistances, summary: gs.Tensor) -> gs.Tensor:
    """Squared distances ``(views, n, classes)``; see ``SiteDistances``."""
    name = f"distance/{site.tensor}"

    def constant(field: str) -> gs.Constant:
        return ops.constant(f"{name}/{field}", getattr(site, field), np.float32)

    def add(op: str, *inputs: gs.Tensor, to: str) -> gs.Tensor:
        return ops.add(op, *inputs, name=f"{name}/{to}")

    size = add("Abs" if site.signed else "Relu", summary, to="size")
    root = add("Sqrt", size, to="root")
    if site.signed:
        root = add("Mul", root, add("Sign", summary, to="sign"), to="signed_root")
    scaled = add("Mul", root, constant("scale"), to="scaled")
    t = add("Sub", scaled, constant("shift"), to="centred")
    p = add("MatMul", t, constant("basis"), to="projected")
    length = ops.over("ReduceSum", add("Mul", t, t, to="squares"), [2], f"{name}/length")
    curved = add("MatMul", add("Mul", p, p, to="parts"), constant("curvature"), to="curved")
    sloped = add("MatMul", p, constant("slopes"), to="sloped")
    shared = add("Add", length, curved, to="shared")
    apart = add("Add", sloped, constant("offsets"), to="apart")
    return ops.add("Add", shared, apart, name=name)


def _axes(site: Site) -> list[int] | None:
    """Axes of positions: all but batch and channels; None where they are not known."""
    if site.rank is None or site.channel_axis is None:
        return None
    return [axis for axis in range(1, site.rank) if axis != site.channel_axis]
