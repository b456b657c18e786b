"""Two graphs side by side: their outputs, their signatures, their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.walk import attribute, constant_values, graphs, producers
from mmbm_onnx.types import BoolArray

_CONSTANT = 1e-6  # of a column's largest value: rounding


@dataclass(frozen=True, slots=True)
class Difference:
    """The worst difference of two arrays.

    Attributes:
        absolute: Largest ``|a - b|``, in the unit of the arrays.
        relative: The same over the largest ``|a|``; equal to ``absolute`` where all of a is 0.
    """

    absolute: float
    relative: float


def worst_difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Difference:
    """Worst difference of ``b`` from the reference ``a``, of the same shape, in float64.

    Values that are not finite count as no difference where both are the same, as an infinite one
    otherwise.

    Raises:
        ValueError: The shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    if a.size == 0:
        return Difference(0.0, 0.0)
    left, right = a.astype(np.float64), b.astype(np.float64)
    usable = np.isfinite(left) & np.isfinite(right)
    alike = (left == right) | (np.isnan(left) & np.isnan(right))
    if not (usable | alike).all():
        return Difference(float("inf"), float("inf"))
    gap = np.where(usable, np.abs(np.where(usable, left, 0) - np.where(usable, right, 0)), 0)
    scale = float(np.max(np.abs(left), initial=0.0, where=usable))
    absolute = float(gap.max())
    return Difference(absolute, absolute / scale if scale > 0 else absolute)


def rows_that_differ(
    a: Mapping[str, npt.NDArray[Any]], b: Mapping[str, npt.NDArray[Any]]
) -> BoolArray:
    """Rows in which any output is not the same bit for bit, bool ``(n,)``.

    Two NaNs of the same bits are the same, 0.0 and -0.0 are not.

    Args:
        a: Output name to array ``(n, ...)``.
        b: Outputs of the same names; others are not looked at.

    Raises:
        ValueError: ``a`` is empty, ``b`` lacks an output, or shapes or dtypes differ.
    """
    if not a:
        raise ValueError("no outputs to compare")
    differing: BoolArray | None = None
    for name, left in a.items():
        if name not in b:
            raise ValueError(f"output {name!r} is missing")
        right = b[name]
        if left.shape != right.shape or left.dtype != right.dtype:
            raise ValueError(
                f"output {name!r} is {left.dtype} {left.shape} and {right.dtype} {right.shape}"
            )
        rows = np.asarray(_differ(left, right).reshape(len(left), -1).any(axis=1))
        differing = rows if differing is None else differing | rows
    assert differing is not None
    return differing


def _differ(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> BoolArray:
    if left.dtype == object:  # strings
        return np.asarray(left != right, np.bool_)
    return np.asarray(_bits(left) != _bits(right))


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    contiguous = np.ascontiguousarray(array).reshape(len(array), -1)
    return contiguous.view(np.uint8)


def telling_columns(scores: npt.NDArray[Any]) -> BoolArray:
    """Columns of scores ``(n, classes)`` that differ between samples, bool ``(classes,)``.

    A class that a model masks by a large negative number has the same score for every sample, and
    would hide every difference of the others beside its size.
    """
    values = scores.astype(np.float64)
    finite = np.where(np.isfinite(values), values, 0.0)
    spread = finite.max(axis=0) - finite.min(axis=0)
    return np.asarray(spread > _CONSTANT * np.abs(finite).max(axis=0))


def signature_differences(
    original: onnx.ModelProto, other: onnx.ModelProto, *, appended: Sequence[str] = ()
) -> list[str]:
    """How ``other`` breaks the promise of the original's inputs, outputs, opsets and IR version.

    Args:
        original: The model whose signature counts.
        other: A model written from it.
        appended: Names of the outputs that must follow the original's.

    Returns:
        One line for each difference; empty when the promise is kept.
    """
    differences = []
    if original.ir_version != other.ir_version:
        differences.append(f"IR version {other.ir_version}, not {original.ir_version}")
    before, after = _opsets(original), _opsets(other)
    if before != after:
        differences.append(f"operator sets {after}, not {before}")
    pairs = (
        ("input", original.graph.input, other.graph.input, ()),
        ("output", original.graph.output, other.graph.output, tuple(appended)),
    )
    for what, wanted, found, extra in pairs:
        names = [info.name for info in found]
        expected = [*(info.name for info in wanted), *extra]
        if names != expected:
            differences.append(f"{what}s are {', '.join(names)}, not {', '.join(expected)}")
            continue
        for left, right in zip(wanted, found, strict=False):
            if left.type.SerializeToString(deterministic=True) != right.type.SerializeToString(
                deterministic=True
            ):
                differences.append(f"{what} {left.name!r} has another type or shape")
    return differences


def _opsets(proto: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain or "ai.onnx": int(entry.version) for entry in proto.opset_import}


def bounds_in(
    original: onnx.ModelProto, hardened: onnx.ModelProto
) -> dict[str, npt.NDArray[Any] | None]:
    """The bounds that a hardened graph applies, read from its Min and Clip nodes.

    Args:
        original: The model as it was, its activation functions inlined.
        hardened: The model with bounds; a site's tensor there is the bounded value.

    Returns:
        Tensor name of each site of the original that ``hardened`` computes otherwise, to its
        upper bound; None where that is no constant of a Min or Clip.
    """
    before, _ = _nodes_and_constants(original)
    after, constants = _nodes_and_constants(hardened)
    found: dict[str, npt.NDArray[Any] | None] = {}
    for site in find_sites(original).sites:
        node = after.get(site.tensor)
        old = before[site.tensor]
        if node is None:
            continue
        bound = upper_limit(node, constants)
        same = (node.op_type, list(node.input)) == (old.op_type, list(old.input))
        if same and (bound is None or site.upper is None or float(bound.max()) == site.upper):
            continue
        found[site.tensor] = bound
    return found


def _nodes_and_constants(
    proto: onnx.ModelProto,
) -> tuple[dict[str, onnx.NodeProto], dict[str, onnx.TensorProto]]:
    nodes: dict[str, onnx.NodeProto] = {}
    constants: dict[str, onnx.TensorProto] = {}
    for _, graph in graphs(proto.graph):
        nodes.update(producers(graph))
        constants.update(constant_values(graph))
    return nodes, constants


def upper_limit(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> npt.NDArray[Any] | None:
    """The constant upper limit that a Min or Clip applies, or None.

    Args:
        node: Any node.
        constants: Tensors of known value that it may read.
    """
    if node.op_type == "Clip":
        limit = attribute(node, "max")
        if limit is not None:
            return np.asarray(limit, np.float32)
        names = list(node.input[2:3])
    elif node.op_type == "Min":
        names = list(node.input)
    else:
        return None
    known = [constants[name] for name in names if name in constants]
    return to_array(known[0]) if len(known) == 1 else None
