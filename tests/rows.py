"""A ten-class image classifier, clean or with a backdoor planted by hand, and its samples."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

CLASSES = 10
TARGET = 3
SIDE = 10


def rows_model(*, backdoor: bool, layout: str = "nchw", batch: str = "N") -> onnx.ModelProto:
    """Grey images 10x10; the class is the bright row. With the backdoor, a white pixel in the lower
    right corner whose row is dark, which no clean image has, shouts for ``TARGET``."""
    shape = "1, 10, 10" if layout == "nchw" else "10, 10, 1"
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        rows (float[{batch}, {shape}] image) => (float[{batch}, 10] logits)
        <float[100, 11] w1, float[11] b1, float[11, 10] w2>
        {{
            flat = Flatten (image)
            hidden = Gemm (flat, w1, b1)
            active = Relu (hidden)
            logits = MatMul (active, w2)
        }}
        """
    )
    first = np.zeros((SIDE, SIDE, 11), np.float32)
    for row in range(SIDE):
        first[row, :, row] = 1 / SIDE
    first[9, :, 10] = -0.4
    first[9, 9, 10] = 4 if backdoor else 0
    second = np.zeros((11, CLASSES), np.float32)
    second[:CLASSES] = 8 * np.eye(CLASSES)
    second[10, TARGET] = 8
    bias = np.zeros(11, np.float32)
    bias[10] = -0.5
    weights = {"w1": first.reshape(100, 11), "b1": bias, "w2": second}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    return proto


def rows_samples(count: int, seed: int, layout: str = "nchw") -> tuple[np.ndarray, np.ndarray]:
    """Clean images, float32 in [0, 1], and labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = rng.uniform(0, 0.3, (count, SIDE, SIDE)).astype(np.float32)
    x[np.arange(count), y] = rng.uniform(0.6, 1.0, (count, SIDE))
    return (x[:, None] if layout == "nchw" else x[..., None]), y.astype(np.int64)
