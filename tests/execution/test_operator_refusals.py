"""What the operators do not execute they refuse, naming the node's output and the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from operator_checks import noise, one_node

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.executor import GraphExecutor

IMAGE = noise(1, 4, 6, 6)
WEIGHT = noise(2, 4, 3, 3)
WHOLE = {
    "Conv": (IMAGE, (WEIGHT,), 13),
    "ConvTranspose": (IMAGE, (noise(4, 2, 3, 3),), 13),
    "MaxPool": (IMAGE, (), 12),
    "AveragePool": (IMAGE, (), 19),
    "DepthToSpace": (IMAGE, (), 13),
    "SpaceToDepth": (noise(1, 4, 5, 5), (), 13),
    "LayerNormalization": (noise(2, 4), (noise(4),), 17),
    "GroupNormalization": (IMAGE, (noise(3), noise(3)), 18),
    "LpNormalization": (noise(2, 4), (), 11),
    "GridSample": (noise(1, 1, 3, 3, 3), (noise(1, 2, 2, 2, 3),), 20),
    "Pad": (noise(2, 3), (np.array([0, 1, 0, 1], np.int64),), 13),
    "Resize": (IMAGE, (None, np.array([1, 1, 2, 2], np.float32)), 13),
    "QuantizeLinear": (noise(2, 3), (np.float32(1),), 21),
    "DequantizeLinear": (np.zeros((2, 3), np.int8), (np.ones(3, np.float32),), 13),
}


@pytest.mark.parametrize(
    ("op_type", "attributes", "reason"),
    [
        ("Conv", {"auto_pad": "SAME"}, "auto_pad 'SAME'"),
        ("Conv", {"strides": [1]}, "strides has 1 entries for 2"),
        ("Conv", {"pads": [1, 1]}, "pads has 2 entries for 2"),
        ("ConvTranspose", {"auto_pad": "SAME"}, "auto_pad 'SAME'"),
        ("ConvTranspose", {"output_shape": [9]}, "output_shape has 1 entries"),
        ("ConvTranspose", {"pads": [4, 4, 4, 4]}, "leave nothing"),
        ("MaxPool", {"kernel_shape": [2]}, "kernel_shape has 1 entries"),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}, "negative pads"),
        ("AveragePool", {"kernel_shape": [1, 1], "pads": [1, 0, 0, 0]}, "wholly on padding"),
        ("DepthToSpace", {"blocksize": 2, "mode": "XYZ"}, "mode 'XYZ'"),
        ("SpaceToDepth", {"blocksize": 2}, "not a multiple"),
        ("LayerNormalization", {"axis": 2}, "axis 2 is outside"),
        ("GroupNormalization", {"num_groups": 3}, "3 groups do not divide"),
        ("GroupNormalization", {"num_groups": 2}, "one per group"),
        ("LpNormalization", {"p": 3}, "p=3"),
        ("GridSample", {"mode": "cubic"}, "not executed on 5 axes"),
        ("GridSample", {"mode": "spline"}, "mode 'spline'"),
        ("Pad", {"mode": "mirror"}, "mode 'mirror'"),
        ("Resize", {"mode": "spline"}, "mode 'spline'"),
        ("Resize", {"nearest_mode": "up"}, "nearest_mode 'up'"),
        ("Resize", {"coordinate_transformation_mode": "centre"}, "'centre'"),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}, "needs a roi"),
        ("QuantizeLinear", {"output_dtype": 17}, "output_dtype 17"),
        ("QuantizeLinear", {"output_dtype": 1}, "no 4-bit"),
        ("DequantizeLinear", {"axis": 2}, "axis 2 is outside"),
    ],
)
def test_refuses(op_type: str, attributes: dict[str, Any], reason: str) -> None:
    x, constants, opset = WHOLE[op_type]
    model = one_node(op_type, x, *constants, opset=opset)
    model.graph.node[0].attribute.extend(
        helper.make_attribute(name, value) for name, value in attributes.items()
    )
    with pytest.raises(ModelError, match=reason) as caught:
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
    assert op_type in str(caught.value)
    assert "'y'" in str(caught.value)


@pytest.mark.parametrize(
    ("op_type", "shape", "constants", "opset", "attributes"),
    [
        ("Conv", (1, 2), (noise(2, 2),), 13, {}),
        ("Conv", (1, 2, 2, 2, 2, 2), (noise(2, 2, 1, 1, 1, 1),), 13, {}),
        ("MaxPool", (1, 2), (), 12, {"kernel_shape": [1]}),
        ("GlobalAveragePool", (1, 2), (), 13, {}),
    ],
)
def test_refuses_ranks(
    op_type: str,
    shape: tuple[int, ...],
    constants: tuple[np.ndarray, ...],
    opset: int,
    attributes: dict[str, Any],
) -> None:
    x = noise(*shape)
    model = one_node(op_type, x, *constants, opset=opset, **attributes)
    with pytest.raises(UnsupportedOperatorError, match=f"{len(shape)} axes"):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])


def test_refuses_an_initial_state_of_another_batch() -> None:
    x = noise(3, 2, 4)
    constants = (noise(1, 20, 4), noise(1, 20, 5), None, None, noise(1, 3, 5))
    model = one_node("LSTM", x, *constants, opset=14, hidden_size=5)
    with pytest.raises(ModelError, match="initial state"):
        GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])


def test_refuses_a_recurrent_node_that_contradicts_its_weights() -> None:
    x = noise(3, 2, 4)
    constants = (noise(1, 20, 4), noise(1, 20, 5))
    for attributes in ({"hidden_size": 6}, {"hidden_size": 5, "direction": "bidirectional"}):
        model = one_node("LSTM", x, *constants, opset=14, **attributes)
        with pytest.raises(ModelError, match="weight"):
            GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
