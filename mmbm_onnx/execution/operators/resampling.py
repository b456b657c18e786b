"""Resize and Upsample: one index list or interpolation matrix per axis; also the grid samplers.

Nearest neighbours are picked at coordinates computed in float32, as runtimes do, because a tie
decides between two pixels. Linear and cubic interpolation are linear maps along each axis: their
matrices are what ``onnx.reference``, the specification's own code, makes of the unit vectors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.operators.resize_plan import AxisPlan, plan_axes, source_positions
from mmbm_onnx.execution.registry import NodeView, operator

# Two pixels whose distances differ by less are a tie, as in ONNX Runtime.
_TIE = 1e-6

_ATTRIBUTES = (
    "antialias",
    "axes",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "keep_aspect_ratio_policy",
    "mode",
    "nearest_mode",
)


@lru_cache(maxsize=256)
def _matrix(
    axis: AxisPlan, mode: str, antialias: int, cubic: float, exclude: int
) -> npt.NDArray[np.float64]:
    """Interpolation matrix of one axis, ``(axis.target, axis.size)``."""
    if axis.coordinates == "pytorch_half_pixel" and axis.target == 1:
        # The specification puts a single output at 0; onnx.reference puts it at -0.5.
        return np.eye(1, axis.size)
    node = helper.make_node(
        "Resize",
        ["x", "roi", "scales"],
        ["y"],
        mode=mode,
        axes=[1],
        antialias=antialias,
        coordinate_transformation_mode=axis.coordinates,
        cubic_coeff_a=cubic,
        exclude_outside=exclude,
        extrapolation_value=0.0,
    )
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [node],
        "axis",
        [helper.make_tensor_value_info(name, double, None) for name in ("x", "roi", "scales")],
        [helper.make_tensor_value_info("y", double, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    # The reference truncates size * scale; the scale must not fall a rounding error short of it.
    scale = axis.scale if int(axis.scale * axis.size) == axis.target else axis.target / axis.size
    feeds = {
        "x": np.eye(axis.size),
        "roi": np.array([axis.start, axis.stop]),
        "scales": np.array([scale]),
    }
    (result,) = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    matrix = np.asarray(result, dtype=np.float64).T
    if matrix.shape != (axis.target, axis.size):
        raise UnsupportedOperatorError(
            f"scale {axis.scale} of an axis of length {axis.size} does not give {axis.target}"
        )
    return matrix


def _interpolate(x: Tensor, axis: AxisPlan, matrix: npt.NDArray[np.float64]) -> Tensor:
    weights = torch.from_numpy(matrix).to(device=x.device, dtype=x.dtype)
    moved = torch.matmul(x.movedim(axis.axis, -1), weights.T)
    return moved.movedim(-1, axis.axis)


def _pick(x: Tensor, axis: AxisPlan, rule: str) -> Tensor:
    """Nearest neighbours along one axis; ``rule`` rounds the coordinate."""
    place = source_positions(axis)
    if rule == "floor":
        index = np.floor(place)
    elif rule == "ceil":
        index = np.ceil(place)
    elif rule in ("round_prefer_floor", "round_prefer_ceil"):
        below = np.floor(place)
        share = place.astype(np.float64) - below
        up = share > 0.5 + _TIE if rule == "round_prefer_floor" else share >= 0.5 - _TIE
        index = below + up
    elif rule == "simple":
        # Resize 10 and Upsample: up towards the start, down towards the end.
        index = np.ceil(place) if axis.scale < 1 else np.floor(place)
    else:
        raise UnsupportedOperatorError(f"nearest_mode {rule!r} is not in the ONNX specification")
    clamped = np.clip(index, 0, axis.size - 1).astype(np.int64)
    return x.index_select(axis.axis, torch.from_numpy(clamped).to(x.device))


def _resize(x: Tensor, plans: list[AxisPlan], options: dict[str, Any]) -> Tensor:
    mode = options["mode"]
    antialias = int(options.get("antialias", 0))
    if mode not in ("nearest", "linear", "cubic"):
        raise UnsupportedOperatorError(f"mode {mode!r} is not nearest, linear or cubic")
    if mode == "nearest" and antialias:
        raise UnsupportedOperatorError("antialias is not specified for mode nearest")
    if mode != "nearest" and not x.is_floating_point():
        raise UnsupportedOperatorError(f"mode {mode} is executed on floating-point tensors only")
    result = x
    for axis in plans:
        if axis.identity:
            continue
        if mode == "nearest":
            result = _pick(result, axis, options.get("nearest_mode", "round_prefer_floor"))
            continue
        if axis.coordinates == "tf_half_pixel_for_nn":
            raise UnsupportedOperatorError("tf_half_pixel_for_nn is executed for nearest only")
        cubic = float(options.get("cubic_coeff_a", -0.75))
        exclude = int(options.get("exclude_outside", 0))
        result = _interpolate(result, axis, _matrix(axis, mode, antialias, cubic, exclude))
    value = options.get("extrapolation_value", 0.0)
    for axis in plans:
        if axis.coordinates == "tf_crop_and_resize":
            place = source_positions(axis)
            outside = torch.from_numpy((place < 0) | (place > axis.size - 1)).to(x.device)
            shape = [-1 if other == axis.axis else 1 for other in range(x.ndim)]
            filler = torch.full((), value, dtype=x.dtype, device=x.device)
            result = torch.where(outside.reshape(shape), filler, result)
    return result


def _numbers(value: Tensor | None) -> list[float] | None:
    """A host tensor as Python floats, or None when omitted or empty."""
    if value is None or value.numel() == 0:
        return None
    return [float(number) for number in value.reshape(-1).tolist()]


@operator("Upsample", since=7, attributes=("mode", "scales"))
def upsample_7(node: NodeView, x: Tensor) -> Tensor:
    """Opset 7 and 8: scales are an attribute."""
    return _legacy(node, x, [float(scale) for scale in node.attributes["scales"]])


@operator("Upsample", since=9, attributes=("mode",), host=(1,))
@operator("Resize", since=10, attributes=("mode",), host=(1,))
def resize_10(node: NodeView, x: Tensor, scales: Tensor) -> Tensor:
    """Resize 10 and Upsample 9: scales are an input, coordinates asymmetric."""
    return _legacy(node, x, _numbers(scales) or [])


def _legacy(node: NodeView, x: Tensor, scales: list[float]) -> Tensor:
    plans = plan_axes(x.shape, list(range(x.ndim)), scales, None, None, "asymmetric", "stretch")
    return _resize(x, plans, {"mode": node.get("mode", "nearest"), "nearest_mode": "simple"})


@operator(
    "Resize",
    since=11,
    attributes=_ATTRIBUTES,
    host=(1, 2, 3),
    limits=(
        "linear and cubic on floating-point tensors; tf_half_pixel_for_nn for nearest only; where "
        "scale times length is not whole, align_corners and aspect ratios follow onnx.reference, "
        "from which ONNX Runtime departs"
    ),
)
def resize_11(
    node: NodeView,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Resize from opset 11: by scales or to sizes, over ``axes`` (from 18) or all of them."""
    axes = [axis % x.ndim for axis in node.get("axes") or range(x.ndim)]
    factors, targets = _numbers(scales), _numbers(sizes)
    if (factors is None) == (targets is None):
        raise ModelError("takes either scales or sizes")
    coordinates = node.get("coordinate_transformation_mode", "half_pixel")
    region = _numbers(roi) if coordinates == "tf_crop_and_resize" else None
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    wanted = None if targets is None else [int(target) for target in targets]
    plans = plan_axes(x.shape, axes, factors, wanted, region, coordinates, policy)
    options = {name: node.get(name) for name in _ATTRIBUTES if node.get(name) is not None}
    return _resize(x, plans, {"mode": "nearest", **options})


_GRID_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}


@operator(
    "GridSample",
    since=16,
    attributes=("align_corners", "mode", "padding_mode"),
    limits="4 axes, and 5 for linear and nearest",
)
def grid_sample(node: NodeView, x: Tensor, grid: Tensor) -> Tensor:
    """``x`` (n, c, *spatial) sampled at ``grid`` (n, *output, axes), in [-1, 1] over the input."""
    mode = _GRID_MODES.get(node.get("mode", "linear"))
    padding = node.get("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection"):
        raise UnsupportedOperatorError(f"mode {node.get('mode')!r} with padding_mode {padding!r}")
    if x.ndim not in (4, 5) or (x.ndim == 5 and mode == "bicubic"):
        raise UnsupportedOperatorError(f"mode {mode} is not executed on {x.ndim} axes")
    align = bool(node.get("align_corners", 0))
    return F.grid_sample(x, grid.to(x.dtype), mode, padding, align)


@operator("AffineGrid", since=20, attributes=("align_corners",), host=(1,))
def affine_grid(node: NodeView, theta: Tensor, size: Tensor) -> Tensor:
    """Sampling grid of the affine maps ``theta`` (n, axes, axes + 1) over an output of ``size``."""
    return F.affine_grid(theta, size.tolist(), bool(node.get("align_corners", 0)))
