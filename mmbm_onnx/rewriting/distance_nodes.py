"""Distances (see ``evidence``) as nodes, of all sites in one go.

Of a small network each node costs more than its numbers, so views with equally many channels share
theirs. Samples are the last axis at first, which lets views be cut apart and put together without
copying, and classes are after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from mmbm_onnx.rewriting.evidence import SiteDistances
from mmbm_onnx.rewriting.operators import Operators


@dataclass(frozen=True, slots=True)
class View:
    """One view of a site's summary.

    Attributes:
        site: Its distances.
        index: Which of the site's views.
    """

    site: SiteDistances
    index: int

    @property
    def channels(self) -> int:
        """How many it has."""
        return int(self.site.scale.shape[2])

    def array(self, field: str) -> npt.NDArray[np.float32]:
        """Its part of an array of ``SiteDistances``, two axes."""
        found: npt.NDArray[np.float32] = getattr(self.site, field)[self.index]
        return found


def distances(ops: Operators, x: gs.Tensor, views: Sequence[View]) -> gs.Tensor:
    """Squared distances ``(views, n, classes)``, small ones as they come; see ``SiteDistances``.

    Args:
        ops: Where nodes go.
        x: All views side by side, float32 ``(n, channels of all)``; best with those of equally many
            channels beside each other.
        views: What each of them is, in that order.
    """

    def constant(name: str, values: Any) -> gs.Constant:
        return ops.constant(f"distance/{name}", values, np.float32)

    def add(op: str, *inputs: gs.Tensor, to: str, **attributes: Any) -> gs.Tensor:
        return ops.add(op, *inputs, name=f"distance/{to}", **attributes)

    def column(field: str) -> npt.NDArray[np.float32]:
        return np.concatenate([view.array(field)[0] for view in views])[:, None]

    root = _roots(ops, add("Transpose", x, to="columns", perm=[1, 0]), views)
    scaled = add("Mul", root, constant("scale", column("scale")), to="scaled")
    t = add("Sub", scaled, constant("shift", column("shift")), to="centred")
    rank = max(view.array("basis").shape[1] for view in views)
    runs = [list(run) for _, run in groupby(views, lambda view: view.channels)]
    sizes = [len(run) * run[0].channels for run in runs]
    lengths, projected = [], []
    for index, (run, part) in enumerate(
        zip(runs, ops.split(t, sizes, "distance/parts"), strict=True)
    ):
        shape = ops.constant(f"distance/shape_{index}", [len(run), run[0].channels, -1], np.int64)
        part = add("Reshape", part, shape, to=f"views_{index}")
        lengths.append(ops.over("ReduceSumSquare", part, [1], f"distance/length_{index}"))
        basis = constant(f"basis_{index}", np.stack([_rows(v.array("basis").T, rank) for v in run]))
        projected.append(add("MatMul", basis, part, to=f"projected_{index}"))
    # From here on classes are the last axis: there may be many of them.
    p = add("Transpose", ops.concat(projected, 0, "distance/all"), to="projected", perm=[0, 2, 1])
    column_shape = ops.constant("distance/column", [len(views), -1, 1], np.int64)
    length = add("Reshape", ops.concat(lengths, 0, "distance/lengths"), column_shape, to="length")
    curvature = np.stack([_rows(view.array("curvature"), rank) for view in views])
    slopes = np.stack([_rows(view.array("slopes"), rank) for view in views])
    offsets = np.stack([view.array("offsets") for view in views])
    squares = add("Mul", p, p, to="squares")
    curved = add("MatMul", squares, constant("curvature", curvature), to="curved")
    shared = add("Add", length, curved, to="shared")
    sloped = add("MatMul", p, constant("slopes", slopes), to="sloped")
    apart = add("Add", sloped, constant("offsets", offsets), to="apart")
    return ops.add("Add", shared, apart, name="distances")


def _rows(array: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """The array with zeros below, so many rows in all."""
    return np.pad(array, [(0, count - len(array)), (0, 0)])


def _roots(ops: Operators, x: gs.Tensor, views: Sequence[View]) -> gs.Tensor:
    """The roots of ``(channels of all, n)``."""
    signed = [view.site.signed for view in views]
    if not any(signed):
        return ops.add("Sqrt", ops.add("Relu", x, name="distance/sizes"), name="distance/roots")
    if not all(signed):
        lowest = np.finfo(np.float32).min
        floors = np.repeat(np.where(signed, lowest, 0), [view.channels for view in views])
        floor = ops.constant("distance/floors", floors[:, None], np.float32)
        x = ops.add("Max", x, floor, name="distance/values")
    root = ops.add("Sqrt", ops.add("Abs", x, name="distance/sizes"), name="distance/roots")
    sign = ops.add("Sign", x, name="distance/signs")
    return ops.add("Mul", root, sign, name="distance/signed_roots")
