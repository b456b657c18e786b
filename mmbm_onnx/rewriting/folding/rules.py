"""How factors pass through operators, and which operators absorb them (ONNX operator spec)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.graph.walk import attribute
from mmbm_onnx.rewriting.folding.walk import Absorbed, Found, Rule, Walk, along
from mmbm_onnx.types import IntArray

_MOST = 1 << 20  # factors of one value
_SMALLEST = 1e-25  # largest of a node's weights: scaled, it still is a normal number of float32


def _same(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """Scaling commutes: Relu, pooling of constant factors and the like; further inputs are not
    scaled, further outputs (masks, indices) neither."""
    walk.unscaled(*node.input[1:])
    return {node.output[0]: walk.of.get(node.input[0])}


def _site_only(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """Clip commutes where its upper limit is the bound; the lower one of a site's is 0
    (``graph.gates``)."""
    if node.output[0] not in walk.sites or node.output[0] in walk.renewed:
        return None
    return _same(node, position, walk)


def _pool(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is not None and not along(found, 1):
        return None
    return _same(node, position, walk)


def _resize(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if attribute(node, "coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None  # may fill in a value that is not scaled
    if found is not None and _length(node.output[0], 1, walk) != _length(node.input[0], 1, walk):
        return None
    return _pool(node, position, walk)


def _dropout(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    if len(node.input) > 2 and node.input[2]:
        training = walk.graph.values(node.input[2])
        if training is None or bool(training.any()):
            return None
    return _same(node, position, walk)


def _reduce(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    axes = _axes(node, walk)
    if axes is None or (not axes and attribute(node, "noop_with_empty_axes", 0)):
        return None
    axes = [axis % found.ndim for axis in axes] or list(range(found.ndim))
    if any(found.shape[axis] != 1 for axis in axes):
        return None
    kept = attribute(node, "keepdims", 1)
    return {node.output[0]: found if kept else found.squeeze(tuple(axes))}


def _axes(node: onnx.NodeProto, walk: Walk) -> list[int] | None:
    """Axes from the attribute or the constant input; empty where there are none."""
    if len(node.input) > 1 and node.input[1]:
        return walk.graph.integers(node.input[1])
    return list(attribute(node, "axes", []))


def _reshape(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """The batch stays the first axis; the others are laid out anew."""
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    before = walk.graph.shapes.get(node.input[0])
    after = walk.graph.shapes.get(node.output[0])
    if before is None or after is None or len(after) == 0 or len(before) != found.ndim:
        return None
    inside, outside = before[1:], after[1:]
    if None in (*inside, *outside) or found.shape[0] != 1 or before[0] != after[0]:
        return None
    lengths = [length for length in inside if length is not None]
    wanted = [length for length in outside if length is not None]
    if np.prod(lengths) != np.prod(wanted) or np.prod(lengths) > _MOST:
        return None
    full = np.broadcast_to(found, (1, *lengths)).reshape(1, *wanted)
    return {node.output[0]: _narrow(full)}


def _flatten(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    return _reshape(node, position, walk) if attribute(node, "axis", 1) == 1 else None


def _narrow(full: IntArray) -> IntArray:
    """With length 1 for axes along which all factors are the same."""
    for axis in range(full.ndim):
        first = full.take([0], axis)
        if full.shape[axis] > 1 and (full == first).all():
            full = first
    return full


def _transpose(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    return {node.output[0]: found.transpose(attribute(node, "perm"))}


def _squeeze(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    axes = _axes(node, walk)
    if not axes:
        return None
    return {node.output[0]: found.squeeze(tuple(axis % found.ndim for axis in axes))}


def _unsqueeze(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    axes = _axes(node, walk)
    return {node.output[0]: np.expand_dims(found, tuple(axes))} if axes else None


def _concat(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    parts = [walk.of.get(name) for name in node.input]
    known = [part for part in parts if part is not None]
    if not known:
        return {}
    rank = known[0].ndim
    axis = attribute(node, "axis") % rank
    lengths = [_length(name, axis, walk) for name in node.input]
    if axis == 0 or None in lengths:
        return None
    ones = np.zeros((1,) * rank, np.int64)
    parts = [ones if part is None else part for part in parts]
    others = np.broadcast_shapes(
        *(_without(part.shape, axis) for part in parts if part is not None)
    )
    full = [
        np.broadcast_to(part, (*others[:axis], length, *others[axis:]))
        for part, length in zip(parts, lengths, strict=True)
        if part is not None and length is not None
    ]
    return {node.output[0]: np.concatenate(full, axis)}


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _length(name: str, axis: int, walk: Walk) -> int | None:
    shape = walk.graph.shapes.get(name)
    return shape[axis] if shape is not None and axis < len(shape) else None


def _split(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    axis = attribute(node, "axis", 0) % found.ndim
    if found.shape[axis] == 1:
        return dict.fromkeys(node.output, found)
    lengths = [_length(name, axis, walk) for name in node.output]
    ends = np.cumsum([length or 0 for length in lengths])
    if None in lengths or ends[-1] != found.shape[axis]:
        return None
    return dict(zip(node.output, np.split(found, ends[:-1], axis), strict=True))


def _slice(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    if len(node.input) == 1:
        given = [attribute(node, name) for name in ("starts", "ends", "axes", "steps")]
    else:
        given = [walk.graph.integers(name) if name else None for name in node.input[1:]]
        if any(name and one is None for name, one in zip(node.input[1:], given, strict=True)):
            return None
    starts, ends, axes, steps = (*given, None, None)[:4]
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else list(axes)
    if found.ndim and any(found.shape[axis % found.ndim] != 1 for axis in axes):
        index = [slice(None)] * found.ndim
        for axis, start, end, step in zip(
            axes, starts, ends, steps or [1] * len(axes), strict=True
        ):
            if step < 1:
                return None
            if found.shape[axis % found.ndim] != 1:
                index[axis % found.ndim] = slice(start, end, step)
        found = found[tuple(index)]
    return {node.output[0]: found}


def _pad(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """With zeros, or with copies of what is at the edge, on axes that factors do not differ on."""
    found = walk.of.get(node.input[0])
    if found is None:
        return {}
    pads = attribute(node, "pads")
    value = attribute(node, "value", 0.0)
    if len(node.input) > 1:
        pads = walk.graph.integers(node.input[1])
        if len(node.input) > 2 and node.input[2]:
            given = walk.graph.values(node.input[2])
            value = None if given is None else float(given.item())
    if len(node.input) > 3 and node.input[3]:
        return None
    if pads is None or len(pads) != 2 * found.ndim or value != 0:
        return None
    touched = {place % found.ndim for place, count in enumerate(pads) if count}
    return None if any(found.shape[axis] != 1 for axis in touched) else {node.output[0]: found}


def _add(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """Both sides have the same factors; a constant is divided by those of the other side."""
    sides = [walk.of.get(name) for name in node.input]
    known = [side for side in sides if side is not None]
    if not known:
        return {}
    rank = max(side.ndim for side in known)
    if len(known) < len(sides):
        constant = _constant_side(node, sides, walk)
        if constant is None or known[0].ndim != rank:
            return None
        walk.shifted[position] = constant, known[0]
        return {node.output[0]: known[0]}
    if any(side.ndim != rank for side in known):
        return None
    first = known[0]
    for other in known[1:]:
        walk.factors.unite(first, other)
        first = first if first.size >= other.size else other
    return {node.output[0]: first}


def _constant_side(
    node: onnx.NodeProto, sides: Sequence[IntArray | None], walk: Walk
) -> int | None:
    """Which of two inputs is a constant that factors can be worked into without growing much."""
    if len(sides) != 2:
        return None
    index = 0 if sides[0] is None else 1
    other = sides[1 - index]
    values = walk.graph.values(node.input[index])
    if values is None or other is None or not _usable(values) or values.ndim > other.ndim:
        return None
    try:
        size = int(np.prod(np.broadcast_shapes(values.shape, other.shape)))
    except ValueError:
        return None
    return index if size <= max(values.size, other.size) else None


def _multiply(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """One side is scaled, and so is the product; the other is not."""
    sides = [walk.of.get(name) for name in node.input]
    known = [side for side in sides if side is not None]
    if not known:
        return {}
    shape = walk.graph.shapes.get(node.output[0])
    if len(known) > 1 or shape is None or known[0].ndim != len(shape):
        return None
    if node.op_type == "Div" and sides[0] is None:
        return None
    return {node.output[0]: known[0]}


def _convolve(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    weight = walk.graph.values(node.input[1])
    if weight is None or not _known(node.input[1:], walk):
        return None
    found = walk.of.get(node.input[0])
    if found is not None and (found.ndim != weight.ndim or not along(found, 1)):
        return None
    groups = attribute(node, "group", 1)
    turned = node.op_type == "ConvTranspose"
    read = weight.shape[0] if turned else weight.shape[1] * groups
    made = weight.shape[1] * groups if turned else weight.shape[0]
    outgoing = walk.factors.new((made,))
    walk.absorbed[position] = Absorbed(_spread(found, read), outgoing)
    return {node.output[0]: outgoing.reshape(1, made, *(1,) * (weight.ndim - 2))}


def _known(names: Sequence[str], walk: Walk) -> bool:
    return all(_usable(walk.graph.values(name)) for name in names if name)


def _usable(values: npt.NDArray[np.generic] | None) -> bool:
    """Whether a constant can be scaled: one so small that products may vanish cannot."""
    if values is None or values.dtype != np.float32:
        return False
    largest = float(np.abs(np.asarray(values, np.float32)).max(initial=0.0))
    return largest == 0 or largest >= _SMALLEST


def _spread(found: IntArray | None, count: int) -> IntArray | None:
    return None if found is None else np.broadcast_to(found.ravel(), (count,))


def _normalize(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """BatchNormalization as it is at inference."""
    rank = len(walk.graph.shapes.get(node.input[0], ()))
    old = not attribute(node, "spatial", 1)  # opset 7 and 8: statistics per position
    if old or attribute(node, "training_mode", 0) or len(node.output) != 1 or rank < 2:
        return None
    scale = walk.graph.values(node.input[1])
    if scale is None or scale.ndim != 1 or not _known(node.input[1:5], walk):
        return None
    found = walk.of.get(node.input[0])
    if found is not None and not along(found, 1):
        return None
    outgoing = walk.factors.new((len(scale),))
    walk.absorbed[position] = Absorbed(_spread(found, len(scale)), outgoing)
    return {node.output[0]: outgoing.reshape(1, -1, *(1,) * (rank - 2))}


def _multiply_matrix(node: onnx.NodeProto, position: int, walk: Walk) -> Found:
    """MatMul or Gemm by a constant matrix on the right."""
    matrix = walk.graph.values(node.input[1])
    if matrix is None or matrix.ndim != 2:
        return None
    if not _known(node.input[1:], walk) or attribute(node, "transA", 0):
        return None
    read, made = matrix.shape[::-1] if attribute(node, "transB", 0) else matrix.shape
    found = walk.of.get(node.input[0])
    rank = len(walk.graph.shapes.get(node.output[0], ()))
    if rank < 2 or (found is not None and (found.ndim != rank or not along(found, rank - 1))):
        return None
    outgoing = walk.factors.new((made,))
    walk.absorbed[position] = Absorbed(_spread(found, read), outgoing)
    return {node.output[0]: outgoing.reshape(*(1,) * (rank - 1), made)}


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Identity", "Relu", "LeakyRelu", "PRelu"), _same),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        _pool,
    ),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(("Add", "Sum", "Sub"), _add),
    **dict.fromkeys(("Mul", "Div"), _multiply),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolve),
    **dict.fromkeys(("MatMul", "Gemm"), _multiply_matrix),
    "BatchNormalization": _normalize,
    "Clip": _site_only,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
