"""Operators of older opsets, which ONNX's own cases no longer reach, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operator_checks import assert_agrees, by_executor, noise, one_node

from mmbm_onnx.errors import UnsupportedOperatorError

X = noise(2, 3, 4, 5)
POSITIVE = np.abs(X) + 0.5


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_before_13_runs_over_all_later_axes(op_type: str, axis: int, opset: int) -> None:
    assert_agrees(one_node(op_type, X, opset=opset, axis=axis), X)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_before_13_defaults_to_axis_1(op_type: str) -> None:
    assert_agrees(one_node(op_type, X, opset=11), X)


@pytest.mark.parametrize("axes", [[0], [1, 2], [-1], [0, 3], None])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    "op_type",
    [
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ],
)
def test_reductions_take_axes_as_attribute(
    op_type: str, keepdims: int, axes: list[int] | None
) -> None:
    given: dict[str, Any] = {} if axes is None else {"axes": axes}
    opset = 11 if op_type == "ReduceSum" else 13
    model = one_node(op_type, POSITIVE, opset=opset, keepdims=keepdims, **given)
    assert_agrees(model, POSITIVE)


@pytest.mark.parametrize(
    "limits", [{"min": -0.5}, {"max": 0.5}, {"min": -0.5, "max": 0.5}, {"min": 0.0, "max": 6.0}]
)
def test_clip_takes_limits_as_attributes(limits: dict[str, float]) -> None:
    assert_agrees(one_node("Clip", X * 4, opset=10, **limits), X * 4)


@pytest.mark.parametrize(
    ("starts", "ends", "axes"),
    [
        ([1], [2], [0]),
        ([0, 1], [2, 3], None),
        ([-2, 0], [-1, 100], [3, 1]),
        ([1, -3], [2**31 - 1, 2**31 - 1], [1, 2]),
    ],
)
def test_slice_takes_attributes(starts: list[int], ends: list[int], axes: list[int] | None) -> None:
    given: dict[str, Any] = {} if axes is None else {"axes": axes}
    assert_agrees(one_node("Slice", X, opset=9, starts=starts, ends=ends, **given), X)


@pytest.mark.parametrize("steps", [[1, 1], [2, -1], [-2, -3], [3, 2]])
@pytest.mark.parametrize(
    ("starts", "ends"),
    [([0, 0], [100, 100]), ([-1, -1], [-100, 0]), ([3, 100], [-5, -6]), ([1, 2], [1, 1])],
)
def test_slice_by_steps(starts: list[int], ends: list[int], steps: list[int]) -> None:
    x = noise(2, 3, 7, 6)
    numbers = [np.array(part, np.int64) for part in (starts, ends, [2, -1], steps)]
    model = one_node("Slice", x, *numbers, opset=13)
    assert_agrees(model, x)


@pytest.mark.parametrize("lengths", [[1, 2], [2, 1], None])
def test_split_takes_lengths_as_attribute(lengths: list[int] | None) -> None:
    x = noise(3, 4)
    axis = 1 if lengths is None else 0
    given: dict[str, Any] = {} if lengths is None else {"split": lengths}
    assert_agrees(one_node("Split", x, opset=11, outputs=("a", "b"), axis=axis, **given), x)


@pytest.mark.parametrize(("op_type", "axes"), [("Squeeze", [0, 2]), ("Unsqueeze", [0, 4])])
def test_axes_are_an_attribute_before_13(op_type: str, axes: list[int]) -> None:
    x = noise(1, 3, 1)
    assert_agrees(one_node(op_type, x, opset=11, axes=axes), x)


def test_squeeze_without_axes_takes_all_of_length_one() -> None:
    x = noise(1, 3, 1)
    assert_agrees(one_node("Squeeze", x, opset=11), x)


def test_top_k_takes_k_as_attribute() -> None:
    x = np.array([[3, 1, 3, 2], [0, 5, 5, 5]], np.float32)
    model = one_node("TopK", x, opset=9, outputs=("values", "indices"), k=2, axis=1)
    assert_agrees(model, x)


@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_elements_of_opset_11(axis: int) -> None:
    x, index = noise(3, 4), np.array([[0, -1, 2], [1, 0, -2]], np.int64)
    model = one_node("ScatterElements", x, index, noise(2, 3, seed=1), opset=11, axis=axis)
    assert_agrees(model, x)


def test_scatter_nd_of_opset_11() -> None:
    index = np.array([[0, 1], [-1, 2]], np.int64)
    model = one_node("ScatterND", X, index, noise(2, 4, 5, seed=1), opset=11)
    assert_agrees(model, X)


@pytest.mark.parametrize("integer", [np.int32, np.int64])
def test_integer_division_rounds_towards_zero(integer: type) -> None:
    x = np.array([-7, 7, -1, 8], integer)
    assert_agrees(one_node("Div", x, np.array([2, -2, 3, 3], integer), opset=13), x)


@pytest.mark.parametrize("fmod", [0, 1])
def test_modulo_of_negative_numbers(fmod: int) -> None:
    x = np.array([-7, 7, -1, 8], np.int64)
    model = one_node("Mod", x, np.array([3, -3, 3, -5], np.int64), opset=13, fmod=fmod)
    assert_agrees(model, x)


def test_round_takes_halves_to_even() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4], np.float32)
    assert_agrees(one_node("Round", x, opset=11), x, tolerance=0)


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Sub", "Div"])
def test_broadcasting_before_opset_7_is_refused(op_type: str) -> None:
    model = one_node(op_type, X, noise(3), opset=6, broadcast=1, axis=1)
    with pytest.raises(UnsupportedOperatorError, match=f"{op_type} node .*'y'.*opset 6"):
        by_executor(model, X)
