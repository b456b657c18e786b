"""Blocks of pixels moved into channels and back."""

from __future__ import annotations

from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator


def _image(x: Tensor) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise ModelError(f"input has {x.ndim} axes, not 4")
    n, c, h, w = x.shape
    return n, c, h, w


@operator("DepthToSpace", attributes=("blocksize", "mode"))
def depth_to_space(node: NodeView, x: Tensor) -> Tensor:
    """(n, c b b, h, w) to (n, c, h b, w b); mode DCR has the block first in c b b, CRD last."""
    n, c, h, w = _image(x)
    block = int(node.attributes["blocksize"])
    if c % (block * block):
        raise ModelError(f"{c} channels are not a multiple of blocksize {block} squared")
    depth = c // (block * block)
    mode = node.get("mode", "DCR")
    if mode == "DCR":
        parts = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        parts = x.reshape(n, depth, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        raise UnsupportedOperatorError(f"mode {mode!r} is not DCR or CRD")
    return parts.reshape(n, depth, h * block, w * block)


@operator("SpaceToDepth", attributes=("blocksize", "mode"))
def space_to_depth(node: NodeView, x: Tensor) -> Tensor:
    """(n, c, h b, w b) to (n, c b b, h, w), the inverse of DepthToSpace in the same mode."""
    n, c, h, w = _image(x)
    block = int(node.attributes["blocksize"])
    if h % block or w % block:
        raise ModelError(f"{h} x {w} pixels are not a multiple of blocksize {block}")
    parts = x.reshape(n, c, h // block, block, w // block, block)
    mode = node.get("mode", "DCR")
    if mode == "DCR":
        parts = parts.permute(0, 3, 5, 1, 2, 4)
    elif mode == "CRD":
        parts = parts.permute(0, 1, 3, 5, 2, 4)
    else:
        raise UnsupportedOperatorError(f"mode {mode!r} is not DCR or CRD")
    return parts.reshape(n, c * block * block, h // block, w // block)
