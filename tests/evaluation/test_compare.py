"""Differences of outputs, signatures and bounds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import toy_models

from mmbm_onnx.evaluation.compare import (
    bounds_in,
    rows_that_differ,
    signature_differences,
    worst_difference,
)
from mmbm_onnx.evaluation.predictions import DETECTOR_OUTPUTS


def test_worst_difference_is_absolute_and_relative_to_the_largest_value() -> None:
    a = np.asarray([[1.0, -4.0], [0.0, 2.0]], np.float32)
    b = np.asarray([[1.5, -4.0], [0.0, 1.0]], np.float32)
    found = worst_difference(a, b)
    assert (found.absolute, found.relative) == (1.0, 0.25)
    assert worst_difference(a, a).absolute == 0
    assert worst_difference(np.zeros(2), np.asarray([0.0, 0.5])).relative == 0.5


def test_values_that_are_not_finite_must_be_the_same() -> None:
    odd = np.asarray([np.inf, -np.inf, np.nan, 1.0])
    assert worst_difference(odd, odd).absolute == 0
    assert worst_difference(odd, np.asarray([np.inf, np.inf, np.nan, 1.0])).absolute == np.inf
    assert worst_difference(odd, np.asarray([np.inf, -np.inf, 0.0, 1.0])).absolute == np.inf
    with pytest.raises(ValueError, match="differ"):
        worst_difference(odd, odd[:3])


def test_rows_differ_by_a_single_bit() -> None:
    a = {"y": np.asarray([[1.0, 2.0], [0.0, 3.0], [np.nan, 1.0]], np.float32), "z": np.arange(3)}
    b = {"y": a["y"].copy(), "z": a["z"].copy(), "more": np.zeros(3)}
    assert not rows_that_differ(a, b).any()
    b["y"][0, 1] = np.nextafter(np.float32(2), np.float32(3))
    b["y"][1, 0] = -0.0
    assert rows_that_differ(a, b).tolist() == [True, True, False]
    b["z"][2] += 1
    assert rows_that_differ(a, b).all()


def test_outputs_that_cannot_be_compared_are_refused() -> None:
    a = {"y": np.zeros((2, 3), np.float32)}
    for other in ({}, {"y": np.zeros((2, 2), np.float32)}, {"y": np.zeros((2, 3))}):
        with pytest.raises(ValueError, match="output 'y'"):
            rows_that_differ(a, other)
    with pytest.raises(ValueError, match="no outputs"):
        rows_that_differ({}, a)


def test_written_graphs_keep_the_signature() -> None:
    original = toy_models.original_proto()
    assert signature_differences(original, toy_models.hardened().proto) == []
    detector = toy_models.detector().proto
    assert signature_differences(original, detector, appended=DETECTOR_OUTPUTS) == []


def test_each_broken_promise_of_the_signature_is_told() -> None:
    original = toy_models.original_proto()
    other = toy_models.original_proto()
    other.ir_version = 9
    other.opset_import[0].version = 18
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    other.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    assert signature_differences(original, other) == [
        "IR version 9, not 8",
        "operator sets {'ai.onnx': 18}, not {'ai.onnx': 17}",
        "input 'x' has another type or shape",
        "output 'logits' has another type or shape",
    ]
    extra = toy_models.detector().proto
    assert "outputs are logits, mmbm_flagged" in signature_differences(original, extra)[0]
    assert signature_differences(extra, original)[0].startswith("outputs are logits, not logits, ")


def test_bounds_are_read_from_the_graph() -> None:
    original = toy_models.original_proto()
    found = bounds_in(original, toy_models.hardened().proto)
    assert list(found) == ["act"]
    assert found["act"] is not None
    assert found["act"].reshape(-1).tolist() == list(toy_models.BOUNDS)
    assert bounds_in(original, original) == {}


RELU6 = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y) <float low = {{0}}, float high = {{6}}, float b = {{2.5}}> {{
    act = Clip(x, low, {upper})
    y = Neg(act)
}}"""


def test_a_tightened_relu6_counts_and_an_untouched_one_does_not() -> None:
    original = onnx.parser.parse_model(RELU6.format(upper="high"))
    tightened = onnx.parser.parse_model(RELU6.format(upper="b"))
    assert {name: float(b) for name, b in bounds_in(original, tightened).items()} == {"act": 2.5}
    assert bounds_in(original, original) == {}
