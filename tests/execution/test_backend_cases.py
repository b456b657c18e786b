"""ONNX's own test cases of single operators, every one that the executor claims to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.constants import tensor_from_array, tensor_from_proto
from mmbm_onnx.execution.executor import GraphExecutor
from mmbm_onnx.execution.expansion import all_nodes, expand
from mmbm_onnx.execution.registry import TORCH_DTYPES, find, registered

# Refused, and the test asserts that they are. Cases whose tensors have an element type that torch
# lacks (strings, 8-bit floats, 4-bit and 2-bit integers) are found by their types, not listed.
REFUSED = {
    "test_batchnorm_epsilon_training_mode": "training mode",
    "test_batchnorm_example_training_mode": "training mode",
    "test_training_dropout": "random",
    "test_training_dropout_default": "random",
    "test_training_dropout_default_mask": "random",
    "test_training_dropout_mask": "random",
    "test_training_dropout_zero_ratio": "training mode",
    "test_training_dropout_zero_ratio_mask": "training mode",
    "test_div_uint64": "torch cannot divide uint64 exactly",
    "test_mod_uint64": "torch cannot divide uint64 exactly",
    "test_top_k_uint64": "torch cannot sort uint64",
}

# Relative precision of half types, with room for the roundings inside of a case that computes in
# them; the executor computes in float32.
ULP = {"float16": 2.0**-9, "bfloat16": 2.0**-6}


@dataclass
class Cases:
    """All cases, sorted by what is to be expected of them."""

    executed: list[Any] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    lacking: list[Any] = field(default_factory=list)
    operators: set[tuple[str, int]] = field(default_factory=set)


def element_types(model: onnx.ModelProto) -> set[int]:
    """Element types of inputs, outputs, initializers and of what Cast and Constant make."""
    values = [*model.graph.input, *model.graph.output]
    types = {
        value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")
    }
    types |= {tensor.data_type for tensor in model.graph.initializer}
    for node in all_nodes(model.graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                types.add(attribute.t.data_type)
            if node.op_type == "Cast" and attribute.name == "to":
                types.add(attribute.i)
    return types


@pytest.fixture(scope="module")
def cases() -> Cases:
    return sort_cases()


def sort_cases() -> Cases:
    """All of ONNX's cases of single operators."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    sorted_cases = Cases()
    for case in collected:
        expanded = expand(case.model)
        found = [
            find(node.domain, node.op_type, expanded.opsets.get(node.domain, 0))
            for node in all_nodes(expanded.graph)
        ]
        if None in found:
            sorted_cases.lacking.append(case)
        elif case.name in REFUSED or not element_types(case.model) <= set(TORCH_DTYPES):
            sorted_cases.refused.append(case)
        else:
            sorted_cases.executed.append(case)
            sorted_cases.operators |= {(entry.name, entry.since) for entry in found if entry}
    return sorted_cases


def tensor(value: Any, promote_half: bool) -> torch.Tensor:
    if isinstance(value, TensorProto):
        return tensor_from_proto(value, promote_half)
    return tensor_from_array(np.asarray(value), promote_half)


def run(case: Any, number: int, promote_half: bool) -> list[torch.Tensor]:
    values = case.data_sets[number][0]
    feeds = {
        declared.name: tensor(value, promote_half)
        for declared, value in zip(case.model.graph.input, values, strict=False)
    }
    names = [value.name for value in case.model.graph.output]
    with torch.no_grad():
        result = GraphExecutor(case.model, promote_half=promote_half).run(feeds, names)
    return [result[name] for name in names]


def compare(case: Any, expected: Any, actual: torch.Tensor) -> None:
    array = numpy_helper.to_array(expected) if isinstance(expected, TensorProto) else expected
    # One case gives plain integers as objects, without an element type.
    array = np.asarray(array)
    array = array.astype(actual.numpy().dtype) if array.dtype == object else array
    tolerance = max(case.rtol, ULP.get(array.dtype.name, 0.0))
    if array.dtype.name in ULP:
        assert actual.dtype == torch.float32
        array = array.astype(np.float32)
    assert actual.numpy().dtype == array.dtype
    assert tuple(actual.shape) == array.shape
    np.testing.assert_allclose(actual.numpy(), array, rtol=tolerance, atol=case.atol)


def test_every_case_of_the_operators_agrees(cases: Cases) -> None:
    failures = []
    for case in cases.executed:
        for number, (_, expected) in enumerate(case.data_sets):
            try:
                for ours, theirs in zip(run(case, number, True), expected, strict=True):
                    compare(case, theirs, ours)
            except Exception as error:
                failures.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
    assert not failures, "\n".join(failures)
    assert len(cases.executed) >= 1450


def by_first_input(case: Any, inputs: list[torch.Tensor]) -> Callable[..., list[torch.Tensor]]:
    """The case's outputs as a function of its first input alone."""
    declared = [value.name for value in case.model.graph.input]
    outputs = [value.name for value in case.model.graph.output]
    executor = GraphExecutor(case.model)

    def run_group(first: torch.Tensor) -> list[torch.Tensor]:
        feeds = dict(zip(declared, [first, *inputs[1:]], strict=False))
        result = executor.run(feeds, outputs)
        return [result[name] for name in outputs]

    return run_group


# torch computes it one by one and warns that this is slow.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_every_case_runs_under_vmap(cases: Cases) -> None:
    failures, mapped = [], 0
    for case in cases.executed:
        inputs = [tensor(value, True) for value in case.data_sets[0][0]]
        # Range turns its input into a shape.
        if not inputs or not inputs[0].is_floating_point() or "range_" in case.name:
            continue
        run_group = by_first_input(case, inputs)
        groups = torch.stack([inputs[0], inputs[0] * 0.5 + 0.25])
        alone = [torch.stack(parts) for parts in zip(*map(run_group, groups), strict=True)]
        try:
            together = torch.func.vmap(run_group)(groups)
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5, equal_nan=True)
        except Exception as error:
            failures.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
        mapped += 1
    assert not failures, "\n".join(failures)
    assert mapped >= 1200


def test_what_is_not_executed_is_refused_by_name(cases: Cases) -> None:
    silent = []
    for case in cases.refused:
        try:
            run(case, 0, promote_half=True)
        except UnsupportedOperatorError:
            continue
        silent.append(case.name)
    assert silent == []
    assert len(cases.refused) <= 180
    assert set(REFUSED) <= {case.name for case in cases.refused}


def test_graphs_with_other_operators_are_refused_by_name(cases: Cases) -> None:
    for case in cases.lacking:
        fed = [value.name for value in case.model.graph.input]
        names = [value.name for value in case.model.graph.output]
        with pytest.raises(UnsupportedOperatorError):
            GraphExecutor(case.model).run({name: torch.ones(1) for name in fed}, names)
    assert len(cases.lacking) <= 230


# Versions that no case reaches, and where they are tested instead.
ELSEWHERE = {
    ("BatchNormalization", 1): "test_normalization",
    ("BatchNormalization", 7): "test_normalization",
    ("Clip", 6): "test_older_versions",
    ("DequantizeLinear", 10): "test_quantization",
    ("DequantizeLinear", 13): "test_quantization",
    ("GlobalLpPool", 2): "test_pooling",
    ("GroupNormalization", 18): "test_normalization",
    ("Hardmax", 1): "test_older_versions",
    ("LogSoftmax", 1): "test_older_versions",
    ("Pad", 2): "test_padding",
    ("QuantizeLinear", 13): "test_quantization",
    ("ReduceL1", 1): "test_older_versions",
    ("ReduceL2", 1): "test_older_versions",
    ("ReduceLogSum", 1): "test_older_versions",
    ("ReduceLogSumExp", 1): "test_older_versions",
    ("ReduceProd", 1): "test_older_versions",
    ("ReduceSum", 1): "test_older_versions",
    ("ReduceSumSquare", 1): "test_older_versions",
    ("Resize", 10): "test_resampling",
    ("ScatterElements", 11): "test_older_versions",
    ("ScatterND", 11): "test_older_versions",
    ("Slice", 1): "test_older_versions",
    ("Softmax", 1): "test_older_versions",
    ("Split", 2): "test_older_versions",
    ("Squeeze", 1): "test_older_versions",
    ("TopK", 1): "test_older_versions",
    ("Upsample", 7): "test_resampling",
}


def test_every_implementation_is_exercised(cases: Cases) -> None:
    standard = {(entry.name, entry.since) for entry in registered() if not entry.domain}
    assert len({name for name, _ in standard}) >= 145
    missing = standard - cases.operators - set(ELSEWHERE)
    assert not missing, str(sorted(missing))
    assert set(ELSEWHERE) <= standard - cases.operators
    for (name, _), module in ELSEWHERE.items():
        assert f'"{name}"' in (Path(__file__).parent / f"{module}.py").read_text("utf-8")
