"""Classifiers that are odd and yet good, and ones whose samples influence each other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mmbm_onnx import harden, verify
from mmbm_onnx.errors import DataError, ModelError

QUICK = {"epochs": 2, "batch_size": 30, "threads": 1, "max_accuracy_drop": 1.0}


def perceptron(
    tail: str = "", more: str = "", *, middle: str = "mixed = Identity (hidden)"
) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 6] x) => (float[N, 3] logits{more})
        {{
            sum = MatMul (x, first)
            hidden = Relu (sum)
            {middle}
            logits = MatMul (mixed, last)
            {tail}
        }}
        """
    )
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(size=(6, 8)), "last": rng.normal(size=(8, 3))}
    for name, values in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return proto


def samples(count: int = 90) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)


def test_labels_that_are_strings_are_compared() -> None:
    proto = perceptron(
        "best = ArgMax <axis = 1, keepdims = 0> (logits) label = Gather (names, best)",
        ", string[N] label",
    )
    names = numpy_helper.from_array(np.array(["ant", "bee", "cat"], object), "names")
    proto.graph.initializer.append(names)
    result = harden(proto, (samples(), None), logits_name="logits", **QUICK)
    given = {"detector": result.detector, "logits_name": "logits", "threads": 1}
    found = verify(proto, result.hardened, (samples(), None), max_accuracy_drop=1.0, **given)
    gates = {gate.name: gate for gate in found.gates}
    assert gates["detector_unflagged_identical"].passed
    wrong = result.detector
    (table,) = [t for t in wrong.graph.initializer if t.name == "names"]
    table.string_data[0] = b"fly"
    spoiled = verify(proto, result.hardened, (samples(), None), max_accuracy_drop=1.0, **given)
    gates = {gate.name: gate for gate in spoiled.gates}
    assert not gates["detector_unflagged_identical"].passed


@pytest.mark.parametrize("where", ["output", "inner"])
def test_a_batch_declared_before_the_input_became_open_is_not_believed(where: str) -> None:
    proto = perceptron()
    stale = onnx.helper.make_tensor_value_info("hidden", onnx.TensorProto.FLOAT, [1, 8])
    if where == "output":
        proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    else:
        proto.graph.value_info.append(stale)
    result = harden(proto, (samples(), None), **QUICK)
    shown = {"detector": result.detector, "max_accuracy_drop": 1.0, "threads": 1}
    found = verify(proto, result.hardened, (samples(), None), **shown)
    assert all(gate.passed for gate in found.gates if gate.name.endswith("_signature"))


MIXED = {
    "mean of the batch": "mean = ReduceMean <axes = [0]> (hidden) mixed = Sub (hidden, mean)",
    "largest of the batch": "top = ReduceMax (hidden) mixed = Div (hidden, top)",
    "the neighbour's features": "head = Slice (hidden, zero, one) rest = Slice (hidden, one, end) "
    "mixed = Concat <axis = 0> (rest, head)",
}


@pytest.mark.parametrize("mask", [None, -1e4, -1e9])
@pytest.mark.parametrize("batch", [None, 2, 16, 32])
@pytest.mark.parametrize("middle", MIXED.values(), ids=MIXED)
def test_samples_that_influence_each_other_are_refused(
    middle: str, batch: int | None, mask: float | None
) -> None:
    proto = perceptron(middle=middle)
    for name, value in (("zero", 0), ("one", 1), ("end", 2**31 - 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    if mask is not None:
        mask_a_class(proto, mask)
    if batch is not None:
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.shape.dim[0].dim_value = batch
    with pytest.raises(ModelError, match="change with the samples that it runs with"):
        harden(proto, (samples(), None), **QUICK)


def mask_a_class(proto: onnx.ModelProto, value: float = -1e9) -> None:
    """Class 2 never wins."""
    proto.graph.node[-1].output[0] = "raw"
    proto.graph.node.append(onnx.helper.make_node("Add", ["raw", "mask"], ["logits"]))
    mask = np.array([0, 0, value], np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(mask, "mask"))


def test_a_class_that_is_masked_does_not_hide_what_the_bounds_do() -> None:
    proto = perceptron()
    mask_a_class(proto)
    result = harden(proto, (samples(), None), **QUICK)
    found = verify(proto, result.hardened, (samples(), None), max_accuracy_drop=1.0, threads=1)
    assert [gate.name for gate in found.gates if not gate.passed] == []


def test_scores_per_pixel_that_are_averaged_are_logits() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 2, 6, 6] x) => (float[N, 3, 1, 1] y)
        {
            c = Conv (x, first)
            hidden = Relu (c)
            scores = Conv (hidden, last)
            mean = GlobalAveragePool (scores)
            y = Softmax <axis = 1> (mean)
        }
        """
    )
    rng = np.random.default_rng(0)
    for name, shape in (("first", (8, 2, 3, 3)), ("last", (3, 8, 1, 1))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    x = rng.normal(size=(120, 2, 6, 6)).astype(np.float32)
    result = harden(proto, (x, None), **QUICK)
    shown = {"detector": result.detector, "max_accuracy_drop": 1.0, "threads": 1}
    found = verify(proto, result.hardened, (x, None), **shown)
    assert [gate.name for gate in found.gates if not gate.passed] == []
    assert result.detector is not None
    (output,) = [info for info in result.detector.graph.output if info.name == "y"]
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [0, 3, 1, 1]


@pytest.mark.parametrize(("keepdims", "shape"), [(0, "N"), (1, "N, 1")])
def test_a_model_that_tells_its_decision_alone_is_taken_by_its_logits(
    keepdims: int, shape: str
) -> None:
    proto = perceptron(
        f"best = ArgMax <axis = 1, keepdims = {keepdims}> (logits)", f", int64[{shape}] best"
    )
    del proto.graph.output[0]
    x = samples()
    y = np.random.default_rng(0).permutation(len(x)) % 3
    result = harden(proto, (x, None), logits_name="logits", **QUICK)
    shown = {"detector": result.detector, "logits_name": "logits", "threads": 1}
    found = verify(proto, result.hardened, (x, None), max_accuracy_drop=1.0, **shown)
    assert [gate.name for gate in found.gates if not gate.passed] == []
    with pytest.raises(DataError, match="accuracy of"):
        harden(proto, (x, y), logits_name="logits", min_accuracy=0.99, **QUICK)


def test_a_decision_that_is_not_that_of_the_logits_is_refused() -> None:
    proto = perceptron(
        "best = ArgMax <axis = 1> (logits) told = Add (best, one)", ", int64[N, 1] told"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    del proto.graph.output[0]
    with pytest.raises(ModelError, match="'told' is not the class of the largest of the logits"):
        harden(proto, (samples(), None), logits_name="logits", **QUICK)
