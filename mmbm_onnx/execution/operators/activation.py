"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.execution.operators.arguments import counted
from mmbm_onnx.execution.registry import NodeView, operator


@operator("Relu")
def relu(_: NodeView, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@operator("LeakyRelu", since=6, attributes=("alpha",))
def leaky_relu(node: NodeView, x: Tensor) -> Tensor:
    """x, times alpha where negative."""
    return F.leaky_relu(x, node.attributes["alpha"])


@operator("PRelu", since=7)
def prelu(_: NodeView, x: Tensor, slope: Tensor) -> Tensor:
    """x, times ``slope`` (broadcast to x) where negative."""
    return torch.where(x < 0, slope * x, x)


@operator("ThresholdedRelu", since=10, attributes=("alpha",))
def thresholded_relu(node: NodeView, x: Tensor) -> Tensor:
    """x where it exceeds alpha, else 0."""
    return torch.where(x > node.attributes["alpha"], x, torch.zeros_like(x))


@operator("Elu", since=6, attributes=("alpha",))
def elu(node: NodeView, x: Tensor) -> Tensor:
    """x, or alpha (e^x - 1) where negative."""
    return F.elu(x, node.attributes["alpha"])


@operator("Celu", since=12, attributes=("alpha",))
def celu(node: NodeView, x: Tensor) -> Tensor:
    """x, or alpha (e^(x / alpha) - 1) where negative."""
    return F.celu(x, node.attributes["alpha"])


@operator("Selu", since=6, attributes=("alpha", "gamma"))
def selu(node: NodeView, x: Tensor) -> Tensor:
    """gamma x, or gamma alpha (e^x - 1) where negative."""
    return F.elu(x, node.attributes["alpha"]) * float(node.attributes["gamma"])


@operator("Softplus")
def softplus(_: NodeView, x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("Softsign")
def softsign(_: NodeView, x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return F.softsign(x)


@operator("Sigmoid")
def sigmoid(_: NodeView, x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return torch.sigmoid(x)


@operator("HardSigmoid", since=6, attributes=("alpha", "beta"))
def hard_sigmoid(node: NodeView, x: Tensor) -> Tensor:
    """alpha x + beta, limited to [0, 1]."""
    return torch.clamp(node.attributes["alpha"] * x + node.attributes["beta"], 0.0, 1.0)


@operator("HardSwish", since=14)
def hard_swish(_: NodeView, x: Tensor) -> Tensor:
    """x times (x / 6 + 1/2) limited to [0, 1]."""
    return F.hardswish(x)


@operator("Swish", since=24, attributes=("alpha",))
def swish(node: NodeView, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(node.attributes["alpha"] * x)


@operator("Mish", since=18)
def mish(_: NodeView, x: Tensor) -> Tensor:
    """x tanh(log(1 + e^x))."""
    return F.mish(x)


@operator("Gelu", since=20, attributes=("approximate",))
def gelu(node: NodeView, x: Tensor) -> Tensor:
    """x times the normal distribution function of x, exact or by tanh."""
    return F.gelu(x, approximate=node.attributes["approximate"])


@operator("Tanh")
def tanh(_: NodeView, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(x)


@operator("Shrink", since=9, attributes=("bias", "lambd"))
def shrink(node: NodeView, x: Tensor) -> Tensor:
    """x moved by bias towards zero outside [-lambd, lambd], zero inside."""
    bias, edge = node.attributes["bias"], node.attributes["lambd"]
    moved = torch.where(x > edge, x - bias, torch.zeros_like(x))
    return torch.where(x < -edge, x + bias, moved).to(x.dtype)


@operator("Softmax", attributes=("axis",))
@operator("LogSoftmax", attributes=("axis",))
@operator("Hardmax", attributes=("axis",))
def softmax_1(node: NodeView, x: Tensor) -> Tensor:
    """Before opset 13: over all axes from ``axis`` on together."""
    axis = node.attributes["axis"]
    # ``axis`` may equal the rank; then every element stands alone.
    axis = axis if axis == x.ndim else counted(axis, x.ndim)
    rows = x.reshape((*x.shape[:axis], -1)) if x.numel() else x
    return _normalised(node.op_type, rows, -1).reshape(x.shape)


@operator("Softmax", since=13, attributes=("axis",))
@operator("LogSoftmax", since=13, attributes=("axis",))
@operator("Hardmax", since=13, attributes=("axis",))
def softmax_13(node: NodeView, x: Tensor) -> Tensor:
    """Along one axis."""
    return _normalised(node.op_type, x, counted(node.attributes["axis"], x.ndim))


def _normalised(op_type: str, x: Tensor, axis: int) -> Tensor:
    if op_type == "Softmax":
        return torch.softmax(x, axis)
    if op_type == "LogSoftmax":
        return torch.log_softmax(x, axis)
    # Hardmax: one at the first largest element.
    best = x.argmax(axis, keepdim=True)
    axis %= x.ndim
    places = torch.arange(x.shape[axis], device=x.device)
    shape = [-1 if other == axis else 1 for other in range(x.ndim)]
    return (places.reshape(shape) == best).to(x.dtype)
