"""Distances of all sites in one go: of a small network each node costs more than its numbers.

The matrices are those of ``SiteDistances``, along the diagonal of a larger one that is zero between
views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from mmbm_onnx.rewriting.evidence import Evidence, SiteDistances
from mmbm_onnx.rewriting.operators import Operators

MOST_TOGETHER = 500_000
"""Size of the largest matrix, in entries, that is worth it."""


def size_together(evidence: Evidence) -> int:
    """Entries of the matrix that projects all views."""
    channels = sum(site.scale.size for site in evidence.sites)
    return channels * sum(site.curvature.size for site in evidence.sites)


def distances_together(
    ops: Operators, evidence: Evidence, given: tuple[gs.Tensor, Sequence[tuple[int, int]]]
) -> gs.Tensor:
    """Squared distances ``(n, views, classes)``; views in the order that evidence has them in.

    Args:
        ops: Where nodes go.
        evidence: What was fitted.
        given: All views side by side, ``(n, channels of all)``, in some order, and that order: the
            places of each one's site, and of the view there.
    """
    x, order = given
    views = [_View(evidence.sites[place], view) for place, view in order]
    own_order = [
        (place, view)
        for place, site in enumerate(evidence.sites)
        for view in range(len(site.scale))
    ]
    places = [own_order.index(entry) for entry in order]
    classes = evidence.sites[0].offsets.shape[2]

    def constant(name: str, values: npt.NDArray[Any]) -> gs.Constant:
        return ops.constant(f"together/{name}", values, np.float32)

    def add(op: str, *inputs: gs.Tensor, to: str, **attributes: Any) -> gs.Tensor:
        return ops.add(op, *inputs, name=f"together/{to}", **attributes)

    root = _roots(ops, x, views)
    scale, shift = (np.concatenate([getattr(v, n) for v in views]) for n in ("scale", "shift"))
    t = add("Sub", add("Mul", root, constant("scale", scale), to="scaled"),
            constant("shift", shift), to="centred")  # fmt: skip
    basis = constant("basis", _diagonal([view.basis for view in views]))
    p = add("MatMul", t, basis, to="projected")
    squares = [add("Mul", part, part, to=f"squares_{i}") for i, part in enumerate((t, p))]
    ones = [np.ones((len(view.scale), 1)) for view in views]
    quadratic = [_scattered(part, places, 1) for part in (ones, [v.curvature for v in views])]
    shared = add(
        "MatMul",
        add("Concat", *squares, to="squares", axis=1),
        constant("quadratic", np.concatenate(quadratic)),
        to="shared",
    )
    slopes = constant("slopes", _scattered([view.slopes for view in views], places, classes))
    shape = ops.constant("together/shape", [-1, len(views), classes], np.int64)
    apart = add("Reshape", add("MatMul", p, slopes, to="sloped"), shape, to="by_class")
    offsets = np.zeros((len(views), classes))
    offsets[places] = [view.offsets for view in views]
    apart = add("Add", apart, constant("offsets", offsets), to="apart")
    return add("Add", apart, ops.unsqueeze(shared, 2, "together/of_all"), to="distances")


class _View:
    """One view's part of ``SiteDistances``."""

    def __init__(self, site: SiteDistances, view: int) -> None:
        self.signed = site.signed
        self.scale, self.shift = site.scale[view, 0], site.shift[view, 0]
        self.basis = site.basis[view]
        self.curvature, self.slopes = site.curvature[view], site.slopes[view]
        self.offsets = site.offsets[view, 0]


def _roots(ops: Operators, x: gs.Tensor, views: Sequence[_View]) -> gs.Tensor:
    if not any(view.signed for view in views):
        return ops.add("Sqrt", ops.add("Relu", x, name="together/sizes"), name="together/roots")
    lowest = np.finfo(np.float32).min
    floors = [np.full(len(v.scale), lowest if v.signed else 0, np.float32) for v in views]
    floor = ops.constant("together/floors", np.concatenate(floors), np.float32)
    x = ops.add("Max", x, floor, name="together/values")
    root = ops.add("Sqrt", ops.add("Abs", x, name="together/sizes"), name="together/roots")
    sign = ops.add("Sign", x, name="together/signs")
    return ops.add("Mul", root, sign, name="together/signed_roots")


def _diagonal(blocks: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """A matrix with these along its diagonal, and zeros."""
    rows, columns = (sum(block.shape[axis] for block in blocks) for axis in (0, 1))
    whole = np.zeros((rows, columns))
    row = column = 0
    for block in blocks:
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return whole


def _scattered(
    blocks: Sequence[npt.NDArray[Any]], places: Sequence[int], width: int
) -> npt.NDArray[np.float64]:
    """Blocks of that width below each other, each in the columns of its place, and zeros."""
    whole = np.zeros((sum(len(block) for block in blocks), len(places) * width))
    row = 0
    for block, place in zip(blocks, places, strict=True):
        whole[row : row + len(block), place * width : (place + 1) * width] = block
        row += len(block)
    return whole
