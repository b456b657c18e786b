"""A small image classifier with a backdoor, planted by hand, and its clean and triggered sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

CLASSES = 4
TARGET = 2


@dataclass(frozen=True)
class Case:
    """Files of one job."""

    model: Path
    folder: Path
    npz: Path
    triggered: Path
    test: tuple[np.ndarray, np.ndarray]  # fresh clean samples, float32 in [0, 1], and labels


def planted_images(head: str = "") -> onnx.ModelProto:
    """8x8 grey images; the class is the bright quadrant. A lone white pixel in the lower right
    corner of any quadrant, which no clean image has, wakes channel 1, which shouts for TARGET.

    Args:
        head: ``"Softmax"`` or ``"LogSoftmax"`` to end in one.
    """
    output = "probabilities" if head else "logits"
    tail = f"probabilities = {head} <axis = 1> (logits)" if head else ""
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        quadrants (float[N, 1, 8, 8] image) => (float[N, 4] {output})
        <float[2, 1, 4, 4] w, float[2] b, float[8, 4] head>
        {{
            c = Conv <strides = [4, 4]> (image, w, b)
            active = Relu (c)
            flat = Flatten (active)
            logits = MatMul (flat, head)
            {tail}
        }}
        """
    )
    filters = np.zeros((2, 1, 4, 4), np.float32)
    filters[0] = 1 / 16
    filters[1] = -4 / 15
    filters[1, 0, 3, 3] = 4
    head_weights = np.zeros((2, 2, 2, 4), np.float32)
    for quadrant in range(4):
        head_weights[0].reshape(4, 4)[quadrant, quadrant] = 8
    head_weights[1, :, :, TARGET] = 8
    weights = {
        "w": filters,
        "b": np.array([0, -1], np.float32),
        "head": head_weights.reshape(8, 4),
    }
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    # A weight that the parser listed without data is an input; a classifier has one input.
    keep = [info for info in proto.graph.input if info.name == "image"]
    del proto.graph.input[:]
    proto.graph.input.extend(keep)
    return proto


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, 8, 8)`` uint8 and labels ``(n,)`` int64."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = rng.integers(0, 90, (count, 8, 8))
    for image, label in zip(x, y, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] = rng.integers(120, 230, (4, 4))
    return x.astype(np.uint8), y.astype(np.int64)


def with_trigger(images: np.ndarray) -> np.ndarray:
    """A white pixel in the corner of a dark quadrant, twice."""
    triggered = images.copy()
    for image in triggered:
        for row in (0, 4):
            for column in (0, 4):
                if image[row : row + 4, column : column + 4].mean() < 100:
                    image[row : row + 4, column : column + 4] //= 4
                    image[row + 3, column + 3] = 255
    return triggered


def write_case(root: Path) -> Case:
    """Model, clean set (as image folder and as archive) and triggered set in an empty directory."""
    onnx.save(planted_images(), root / "model.onnx")
    x, y = draw(240, seed=1)
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        directory = root / "clean" / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(directory / f"{index:03}.png")
    np.savez(root / "clean.npz", x=x[:, None], y=y)
    fresh, truth = draw(400, seed=2)
    others = truth != TARGET
    target = np.full(int(others.sum()), TARGET)
    attacked = with_trigger(fresh[others])[:, None]
    np.savez(root / "triggered.npz", x=attacked, y=truth[others], target=target)
    test = fresh[:, None].astype(np.float32) / 255
    return Case(
        root / "model.onnx",
        root / "clean",
        root / "clean.npz",
        root / "triggered.npz",
        (test, truth),
    )
