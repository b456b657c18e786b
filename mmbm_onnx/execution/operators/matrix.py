"""Matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.operators.arguments import widened
from mmbm_onnx.execution.registry import NodeView, operator


@operator("MatMul")
def matmul(_: NodeView, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes, as ``numpy.matmul``."""
    return torch.matmul(widened(a), widened(b)).to(a.dtype)


@operator("Gemm", since=7, attributes=("alpha", "beta", "transA", "transB"))
def gemm(node: NodeView, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha A B + beta C with A, B possibly transposed and C broadcast to (m, n)."""
    if a.ndim != 2 or b.ndim != 2:
        raise ModelError(f"inputs have {a.ndim} and {b.ndim} axes, expected 2 and 2")
    alpha, beta = node.attributes["alpha"], node.attributes["beta"]
    if not a.is_floating_point() and (alpha, beta) != (1.0, 1.0):
        raise UnsupportedOperatorError("integers with alpha or beta other than 1")
    a = a.T if node.attributes["transA"] else a
    plain = alpha == 1.0 and (c is None or beta == 1.0)
    if plain and node.attributes["transB"] and a.is_floating_point():
        if c is None or c.shape == b.shape[:1]:
            return F.linear(a, b, c)
        return F.linear(a, b) + c
    b = b.T if node.attributes["transB"] else b
    product: Tensor = matmul(node, a, b)
    if alpha != 1.0:
        product = alpha * product
    if c is not None:
        product = product + (c if beta == 1.0 else beta * c)
    return product.to(a.dtype)


@operator("Einsum", since=12, attributes=("equation",))
def einsum(node: NodeView, *operands: Tensor) -> Tensor:
    """Sum of products after the equation."""
    return torch.einsum(node.attributes["equation"].replace(" ", ""), *operands)
