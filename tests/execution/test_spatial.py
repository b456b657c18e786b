"""Depth to space and back against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from operator_checks import (
    assert_agrees,
    assert_differentiable,
    assert_maps,
    by_executor,
    noise,
    one_node,
)

from mmbm_onnx.errors import ModelError


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    x = noise(2, 12, 3, 2)
    model = one_node("DepthToSpace", x, opset=13, blocksize=2, mode=mode)
    assert_agrees(model, x)
    assert_maps(model, x)


@pytest.mark.parametrize("opset", [5, 13])
def test_blocks_keep_their_default_order(opset: int) -> None:
    x = noise(2, 12, 6, 4)
    assert_agrees(one_node("DepthToSpace", x, opset=opset, blocksize=2), x)
    assert_agrees(one_node("SpaceToDepth", x, opset=opset, blocksize=2), x)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_one_undoes_the_other(mode: str) -> None:
    x = noise(2, 12, 3, 2)
    (image,) = by_executor(one_node("DepthToSpace", x, opset=13, blocksize=2, mode=mode), x)
    back = one_node("SpaceToDepth", image, opset=28, blocksize=2, mode=mode)
    np.testing.assert_array_equal(by_executor(back, image)[0], x)


def test_differentiates() -> None:
    x = noise(1, 4, 2, 2, dtype=np.float64)
    assert_differentiable(one_node("DepthToSpace", x, opset=13, blocksize=2), x)
    assert_differentiable(one_node("SpaceToDepth", x, opset=13, blocksize=2), x)


def test_refuses_channels_that_make_no_blocks() -> None:
    x, model = noise(1, 6, 2, 2), one_node("DepthToSpace", noise(1, 8, 2, 2), opset=13, blocksize=2)
    with pytest.raises(ModelError, match="not a multiple"):
        assert_maps(model, x)
