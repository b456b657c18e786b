"""Evidence (see ``evidence``) as nodes of the detector graph; operators of opset 9 and up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.rewriting.evidence import SMALLEST_DISTANCE, Evidence, SiteDistances
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
    name, axes = f"summary/{site.tensor}", _axes(site)
    assert axes is not None
    if site.dtype != np.float32:
        tensor = ops.cast(tensor, TensorProto.FLOAT, f"{name}/float")
    if not axes:
        return ops.unsqueeze(tensor, 0, name)
    if site.channel_axis == 1 and len(axes) <= _MOST_POOLED:
        # In ONNX Runtime these keep the blocked layout of the convolution before them.
        pooled = [
            ops.add("Flatten", ops.add(op, tensor, name=f"{name}/{op}"), name=f"{name}/{op}/flat")
            for op in ("GlobalAveragePool", "GlobalMaxPool")
        ]
    else:
        pooled = [
            ops.over(op, tensor, axes, f"{name}/{op}", keepdims=0)
            for op in ("ReduceMean", "ReduceMax")
        ]
    views = [ops.unsqueeze(view, 0, f"{name}/view_{index}") for index, view in enumerate(pooled)]
    return ops.add("Concat", *views, name=name, axis=0)


def score(
    ops: Operators,
    evidence: Evidence,
    summaries: Mapping[str, gs.Tensor],
    is_suspected: gs.Tensor,
    margin: gs.Tensor,
) -> gs.Tensor:
    """The score ``(n, 1)``, float32, as ``Evidence.scores`` computes it.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        summaries: ``summarize`` of each of its sites.
        is_suspected: The original's decision as a mask ``(n, classes)``.
        margin: Margin difference ``(n, 1)``, float32.
    """
    every = [_distances(ops, site, summaries[site.tensor]) for site in evidence.sites]
    joined = ops.add("Concat", *every, name="all_distances", axis=0)
    least = ops.constant("smallest_distance", SMALLEST_DISTANCE, np.float32)
    distances = ops.add("Max", joined, least, name="distances")  # (views, n, classes)
    zero = ops.constant("no_distance", 0, np.float32)
    far = ops.constant("far", np.finfo(np.float32).max, np.float32)
    own = ops.over(
        "ReduceSum", ops.add("Where", is_suspected, distances, zero, name="own"), [2], "own_sum"
    )
    other = ops.over(
        "ReduceMin", ops.add("Where", is_suspected, far, distances, name="others"), [2], "nearest"
    )
    parts = []
    for name, value, weights in (("own", own, evidence.own), ("other", other, evidence.other)):
        logarithm = ops.add("Log", value, name=f"{name}_log")
        constant = ops.constant(f"{name}_weights", weights[:, None, None], np.float32)
        weighed = ops.add("Mul", logarithm, constant, name=f"{name}_weighed")
        parts.append(ops.over("ReduceSum", weighed, [0], f"{name}_part", keepdims=0))
    unusual = ops.add("Sub", *parts, name="unusual")  # (n, 1)
    per_logit = ops.constant("margin_weight", evidence.margin, np.float32)
    moved = ops.add("Mul", margin, per_logit, name="margin_part")
    both = ops.add("Add", unusual, moved, name="both_parts")
    constant = ops.constant("score_constant", evidence.constant, np.float32)
    return ops.add("Add", both, constant, name="score")


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
