"""What shape, indexing and reduction operators cannot compute they refuse, naming the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from operator_checks import by_executor, noise, one_node

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError

X = noise(2, 3, 4)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("op_type", "constants", "attributes", "reason"),
    [
        ("Reshape", (ints(2, 3, 4, 0),), {}, "copies an axis"),
        ("Reshape", (ints(0, -1),), {"allowzero": 1}, "both 0 and -1"),
        ("Reshape", (ints(5, 5),), {}, "invalid for input of size"),
        ("Squeeze", (ints(1),), {}, "has not length 1"),
        ("Unsqueeze", (ints(0, 0),), {}, "given twice"),
        ("Unsqueeze", (ints(9),), {}, "outside"),
        ("Split", (ints(1, 1),), {"axis": 1}, "2 parts for 1 outputs"),
        ("Tile", (ints(2),), {}, "1 repeats for 3 axes"),
        ("Flatten", (), {"axis": 4}, "outside"),
        ("Slice", (ints(0), ints(1), ints(0), ints(0)), {}, "a step is zero"),
        ("Slice", (ints(0, 1), ints(1)), {}, "differ in length"),
        ("Gather", (ints(3),), {"axis": 1}, "out of"),
        ("Concat", (noise(2, 3),), {"axis": 0}, r"\[2, 3\] axes"),
        ("ReduceSum", (ints(3),), {}, "outside"),
        ("Gemm", (noise(4, 2),), {}, "expected 2 and 2"),
    ],
)
def test_refused_with_the_reason(
    op_type: str, constants: tuple[np.ndarray, ...], attributes: dict[str, Any], reason: str
) -> None:
    model = model_of(op_type, constants, attributes)
    with pytest.raises(ModelError, match=rf"{op_type} node \(output 'y'\).*{reason}"):
        by_executor(model, X)


def model_of(
    op_type: str, constants: tuple[np.ndarray, ...], attributes: dict[str, Any], opset: int = 17
) -> onnx.ModelProto:
    """One node that ONNX's shape inference need not accept."""
    names = [f"c{place}" for place in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *names], ["y"], **attributes)],
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))],
        [onnx.ValueInfoProto(name="y")],
        [
            numpy_helper.from_array(value, name)
            for name, value in zip(names, constants, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_uneven_parts_need_opset_18() -> None:
    x = noise(5)
    uneven = one_node("Split", x, opset=18, outputs=("a", "b"), num_outputs=2)
    assert [part.shape for part in by_executor(uneven, x)] == [(3,), (2,)]
    for outputs, opset in ((("a", "b"), 13), (("a", "b", "c", "d"), 13)):
        node = helper.make_node("Split", ["x"], list(outputs))
        graph = helper.make_graph(
            [node],
            "uneven",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        with pytest.raises(ModelError, match="cannot be cut into"):
            by_executor(model, x)


def test_top_k_of_more_than_there_is() -> None:
    model = model_of("TopK", (ints(5),), {})
    with pytest.raises(ModelError, match="k is 5 on an axis of length 4"):
        by_executor(model, X)


def test_integer_products_are_not_scaled() -> None:
    x = np.ones((2, 2), np.int64)
    model = one_node("Gemm", x, x, opset=13, alpha=0.5)
    with pytest.raises(UnsupportedOperatorError, match="alpha or beta"):
        by_executor(model, x)
    assert by_executor(one_node("Gemm", x, x, x, opset=13, transB=1), x)[0].tolist() == [[3, 3]] * 2


def test_maximum_of_nothing_is_the_smallest_value() -> None:
    for dtype, smallest in ((np.float32, -np.inf), (np.int32, np.iinfo(np.int32).min)):
        x = np.zeros((2, 0), dtype)
        model = one_node("ReduceMax", x, opset=13, axes=[1], keepdims=0)
        assert by_executor(model, x)[0].tolist() == [smallest] * 2


def test_external_data_must_be_loaded_before() -> None:
    model = one_node("Add", X, X, opset=13)
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="external data was not loaded"):
        by_executor(model, X)
