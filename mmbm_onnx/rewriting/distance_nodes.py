"""Distances (see ``evidence``) as nodes, of all sites in one go.

Of a small network each node costs more than its numbers, so views with equally many channels share
theirs. Channels are the last axis at first, then samples, which lets views be cut apart and put
together without copying, and classes after that.
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

    def per_channel(field: str) -> gs.Constant:
        return constant(field, np.concatenate([view.array(field)[0] for view in views]))

    scaled = add("Mul", _roots(ops, x, views), per_channel("scale"), to="scaled")
    centred = add("Sub", scaled, per_channel("shift"), to="centred")
    # Samples are the last axis now: views can be cut apart without copying.
    t = add("Transpose", centred, to="columns", perm=[1, 0])
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
    p = ops.concat(projected, 0, "distance/all")
    squares = add("Mul", p, p, to="squares")
    summed = ops.concat([squares, ops.concat(lengths, 0, "distance/lengths")], 1, "distance/summed")
    weights = [np.append(_rows(view.array("curvature"), rank), [[1]], axis=0) for view in views]
    slopes = [_rows(view.array("slopes"), rank) for view in views]
    offsets = [view.array("offsets") for view in views]

    def times(tensor: gs.Tensor, factors: list[npt.NDArray[Any]], to: str) -> gs.Tensor:
        """``(views, n, -1)``, of a tensor with samples last: there may be many classes."""
        rows = add("Transpose", tensor, to=f"{to}_rows", perm=[0, 2, 1])
        return add("MatMul", rows, constant(f"{to}_by", np.stack(factors)), to=to)

    apart = add("Add", times(p, slopes, "sloped"), constant("offsets", np.stack(offsets)),
                to="apart")  # fmt: skip
    return ops.add("Add", times(summed, weights, "curved"), apart, name="distances")


def _rows(array: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """The array with zeros below, so many rows in all."""
    return np.pad(array, [(0, count - len(array)), (0, 0)])


def _roots(ops: Operators, x: gs.Tensor, views: Sequence[View]) -> gs.Tensor:
    """The roots of ``(n, channels of all)``."""
    signed = [view.site.signed for view in views]
    if not any(signed):
        return ops.add("Sqrt", ops.add("Relu", x, name="distance/sizes"), name="distance/roots")
    if not all(signed):
        lowest = np.finfo(np.float32).min
        floors = np.repeat(np.where(signed, lowest, 0), [view.channels for view in views])
        floor = ops.constant("distance/floors", floors, np.float32)
        x = ops.add("Max", x, floor, name="distance/values")
    root = ops.add("Sqrt", ops.add("Abs", x, name="distance/sizes"), name="distance/roots")
    sign = ops.add("Sign", x, name="distance/signs")
    return ops.add("Mul", root, sign, name="distance/signed_roots")
