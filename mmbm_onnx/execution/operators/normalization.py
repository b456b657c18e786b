"""Normalization by stored or by computed statistics, at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator

_HALF = (torch.float16, torch.bfloat16)


def _wide(x: Tensor) -> Tensor:
    """Half precision widened to float32: statistics of half overflow."""
    return x.to(torch.float32) if x.dtype in _HALF else x


def _stored(
    node: NodeView, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` along axis 1."""
    if any(node.wants(output) for output in range(1, len(node.outputs))):
        raise UnsupportedOperatorError("more than one output means training, not inference")
    if mean.ndim != 1 or x.ndim < 2:
        raise UnsupportedOperatorError("statistics are executed per channel of 2 or more axes only")
    wide = _wide(x)
    scale, bias, mean, variance = (part.to(wide.dtype) for part in (scale, bias, mean, variance))
    epsilon = float(node.get("epsilon", 1e-5))
    return F.batch_norm(wide, mean, variance, scale, bias, False, 0.0, epsilon).to(x.dtype)


@operator(
    "BatchNormalization",
    attributes=("consumed_inputs", "epsilon", "is_test", "momentum", "spatial"),
    limits="inference, per channel",
)
def batch_normalization_1(
    node: NodeView, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Opset 1 and 6, where ``is_test`` chooses inference."""
    if not node.get("is_test", 0):
        raise UnsupportedOperatorError("is_test=0 means training, not inference")
    if not node.get("spatial", 1):
        raise UnsupportedOperatorError("spatial=0 is not executed")
    return _stored(node, x, scale, bias, mean, variance)


@operator(
    "BatchNormalization",
    since=7,
    attributes=("epsilon", "momentum", "spatial"),
    limits="inference, per channel",
)
def batch_normalization_7(
    node: NodeView, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Opset 7 to 13, where a single output means inference."""
    if not node.get("spatial", 1):
        raise UnsupportedOperatorError("spatial=0 is not executed")
    return _stored(node, x, scale, bias, mean, variance)


@operator(
    "BatchNormalization",
    since=14,
    attributes=("epsilon", "momentum", "training_mode"),
    limits="inference, per channel",
)
def batch_normalization_14(
    node: NodeView, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Opset 14 on, where ``training_mode`` tells."""
    if node.get("training_mode", 0):
        raise UnsupportedOperatorError("training_mode=1 is not executed; export for inference")
    return _stored(node, x, scale, bias, mean, variance)


def _by_group(x: Tensor, groups: int, epsilon: float) -> Tensor:
    """Mean 0 and variance 1 over each of ``groups`` equal parts of axis 1 and all later axes."""
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ModelError(f"{groups} groups do not divide an input of shape {list(x.shape)}")
    parts = x.reshape(x.shape[0], groups, -1)
    variance, mean = torch.var_mean(parts, dim=2, correction=0, keepdim=True)
    return ((parts - mean) * torch.rsqrt(variance + epsilon)).reshape(x.shape)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))


@operator("InstanceNormalization", since=6, attributes=("epsilon",))
def instance_normalization(node: NodeView, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every channel of every sample by its own mean and variance."""
    wide = _wide(x)
    result = _by_group(wide, x.shape[1], float(node.get("epsilon", 1e-5)))
    return (result * _per_channel(scale, wide) + _per_channel(bias, wide)).to(x.dtype)


@operator("GroupNormalization", since=18, attributes=("epsilon", "num_groups"))
def group_normalization_18(node: NodeView, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Opset 18 to 20: scale and bias hold one entry per group."""
    groups = int(node.attributes["num_groups"])
    if scale.numel() != groups or bias.numel() != groups:
        raise ModelError(f"scale and bias do not have {groups} entries, one per group")
    width = x.shape[1] // groups
    return _group_normalization(
        node, x, scale.repeat_interleave(width), bias.repeat_interleave(width)
    )


@operator("GroupNormalization", since=21, attributes=("epsilon", "num_groups", "stash_type"))
def group_normalization_21(node: NodeView, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Opset 21 on: scale and bias hold one entry per channel."""
    return _group_normalization(node, x, scale, bias)


def _group_normalization(node: NodeView, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    wide = _wide(x)
    groups = int(node.attributes["num_groups"])
    result = _by_group(wide, groups, float(node.get("epsilon", 1e-5)))
    return (result * _per_channel(scale, wide) + _per_channel(bias, wide)).to(x.dtype)


def _trailing(node: NodeView, x: Tensor) -> list[int]:
    """Axes from attribute ``axis`` to the last."""
    axis = int(node.get("axis", -1))
    if not -x.ndim <= axis < x.ndim:
        raise ModelError(f"axis {axis} is outside an input of {x.ndim} axes")
    return list(range(axis % x.ndim, x.ndim))


@operator("LayerNormalization", since=17, attributes=("axis", "epsilon", "stash_type"))
def layer_normalization(
    node: NodeView, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized input, its mean, and the inverse of its standard deviation, from ``axis`` on."""
    wide = _wide(x)
    axes = _trailing(node, x)
    variance, mean = torch.var_mean(wide, dim=axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + float(node.get("epsilon", 1e-5)))
    result = (wide - mean) * inverse * scale.to(wide.dtype)
    if bias is not None:
        result = result + bias.to(wide.dtype)
    return result.to(x.dtype), mean, inverse


@operator("RMSNormalization", since=23, attributes=("axis", "epsilon", "stash_type"))
def rms_normalization(node: NodeView, x: Tensor, scale: Tensor) -> Tensor:
    """Input divided by its root mean square from ``axis`` on."""
    wide = _wide(x)
    mean_square = (wide * wide).mean(dim=_trailing(node, x), keepdim=True)
    result = wide * torch.rsqrt(mean_square + float(node.get("epsilon", 1e-5)))
    return (result * scale.to(wide.dtype)).to(x.dtype)


@operator("LRN", attributes=("alpha", "beta", "bias", "size"))
def lrn(node: NodeView, x: Tensor) -> Tensor:
    """Local response normalization over ``size`` neighbouring channels."""
    size = int(node.attributes["size"])
    before = (size - 1) // 2
    channels = x.shape[1]
    squares = F.pad(x * x, [0, 0] * (x.ndim - 2) + [before, size - 1 - before])
    total = squares.narrow(1, 0, channels)
    for shift in range(1, size):
        total = total + squares.narrow(1, shift, channels)
    alpha, beta = float(node.get("alpha", 1e-4)), float(node.get("beta", 0.75))
    return x / (float(node.get("bias", 1.0)) + alpha / size * total) ** beta


@operator("LpNormalization", attributes=("axis", "p"))
def lp_normalization(node: NodeView, x: Tensor) -> Tensor:
    """Input divided by its 1- or 2-norm along ``axis``; 0 where the norm is 0."""
    p = int(node.get("p", 2))
    if p not in (1, 2):
        raise ModelError(f"p={p} is not 1 or 2")
    axis = int(node.get("axis", -1))
    norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("MeanVarianceNormalization", since=9, attributes=("axes",))
def mean_variance_normalization(node: NodeView, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over ``axes``, the batch among them where they name it."""
    axes = [int(axis) for axis in node.get("axes", [0, 2, 3])]
    variance, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)
