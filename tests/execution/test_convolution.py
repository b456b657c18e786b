"""Conv and ConvTranspose against ONNX Runtime over their attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from operator_checks import assert_agrees, assert_differentiable, assert_maps, noise, one_node

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.executor import GraphExecutor

SIZES = {1: (9,), 2: (8, 7), 3: (6, 5, 7)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}


def pads(axes: int, begin: int, end: int) -> list[int]:
    return [begin] * axes + [end] * axes


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2},
        {"dilations": 2, "pads": (2, 2)},
        {"pads": (1, 1), "strides": 2},
        {"pads": (0, 1)},
        {"pads": (2, 0), "strides": 3},
        {"group": 2, "pads": (1, 2)},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "SAME_UPPER", "strides": 2},
        {"auto_pad": "SAME_LOWER", "strides": 2},
        {"auto_pad": "SAME_UPPER", "strides": 4},
        {"auto_pad": "VALID", "strides": 2},
    ],
    ids=str,
)
def test_conv(opset: int, axes: int, attributes: dict[str, Any]) -> None:
    given = dict(attributes)
    for name in ("strides", "dilations"):
        if name in given:
            given[name] = [given[name]] * axes
    if "pads" in given:
        given["pads"] = pads(axes, *given["pads"])
    groups = given.get("group", 1)
    x = noise(2, 4, *SIZES[axes])
    weight, bias = noise(6, 4 // groups, *KERNELS[axes], seed=1), noise(6, seed=2)
    assert_agrees(one_node("Conv", x, weight, bias, opset=opset, **given), x)


def test_depthwise_conv_without_bias() -> None:
    x, weight = noise(1, 5, 8, 8), noise(5, 1, 3, 3, seed=1)
    model = one_node("Conv", x, weight, opset=13, group=5, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    assert_agrees(model, x)
    assert_maps(model, x)


@pytest.mark.parametrize("opset", [7, 11])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2},
        {"strides": 2, "output_padding": 1},
        {"strides": 2, "output_padding": 1, "pads": (1, 1)},
        {"strides": 3, "pads": (0, 1)},
        {"strides": 2, "pads": (2, 0), "output_padding": 1},
        {"dilations": 2, "pads": (1, 1)},
        {"group": 2, "strides": 2},
        {"strides": 2, "auto_pad": "VALID"},
        {"strides": 2, "auto_pad": "SAME_UPPER"},
        {"strides": 2, "auto_pad": "SAME_LOWER"},
        {"strides": 2, "output_shape": -1},
        {"strides": 2, "output_shape": -1, "auto_pad": "SAME_UPPER"},
        {"strides": 2, "output_shape": -1, "auto_pad": "SAME_LOWER"},
        {"strides": 3, "output_shape": 1},
    ],
    ids=str,
)
def test_conv_transpose(opset: int, axes: int, attributes: dict[str, Any]) -> None:
    given = dict(attributes)
    step = given.get("strides", 1)
    for name in ("strides", "dilations", "output_padding"):
        if name in given:
            given[name] = [given[name]] * axes
    if "pads" in given:
        given["pads"] = pads(axes, *given["pads"])
    if "output_shape" in given:
        given["output_shape"] = [
            (size - 1) * step + 3 + given["output_shape"] for size in SIZES[axes]
        ]
    groups = given.get("group", 1)
    x = noise(2, 4, *SIZES[axes])
    weight, bias = noise(4, 6 // groups, *[3] * axes, seed=1), noise(6, seed=2)
    assert_agrees(one_node("ConvTranspose", x, weight, bias, opset=opset, **given), x)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_maps_and_differentiates(op_type: str, axes: int) -> None:
    x = noise(1, 2, *[4] * axes, dtype=np.float64)
    weight = noise(2, 2, *[2] * axes, seed=1, dtype=np.float64)
    bias = noise(2, seed=2, dtype=np.float64)
    model = one_node(op_type, x, weight, bias, opset=13, strides=[2] * axes, pads=pads(axes, 1, 0))
    assert_maps(model, x)
    assert_differentiable(model, x)


def run(model: Any, x: np.ndarray) -> None:
    GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])


def test_refuses_an_output_larger_than_the_windows_reach() -> None:
    x = noise(1, 1, 4)
    model = one_node(
        "ConvTranspose", x, noise(1, 1, 3), opset=11, strides=[4], auto_pad="SAME_UPPER"
    )
    with pytest.raises(UnsupportedOperatorError, match="more than its windows cover"):
        run(model, x)


def test_refuses_a_kernel_shape_unlike_the_weight() -> None:
    x = noise(1, 1, 4)
    node = one_node("Conv", x, noise(1, 1, 3), opset=11)
    node.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [2]))
    with pytest.raises(ModelError, match="kernel_shape"):
        run(node, x)


def test_refuses_a_window_larger_than_its_input() -> None:
    x = noise(1, 1, 2)
    model = one_node("Conv", noise(1, 1, 5), noise(1, 1, 3), opset=11)
    with pytest.raises(ModelError, match="no window"):
        run(model, x)
