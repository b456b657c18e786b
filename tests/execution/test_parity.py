"""The parity gate: agreement passes, a broken operator is found by the tensor it spoils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

from mmbm_onnx.errors import ParityError
from mmbm_onnx.execution import registry
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import check_parity, relative_difference
from mmbm_onnx.types import Interface


def model(batch: int | None = None, dtype: str = "float") -> onnx.ModelProto:
    size = "N" if batch is None else str(batch)
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net ({dtype}[{size}, 2, 5, 5] x) => ({dtype}[{size}, 3] probabilities) {{
            a = Conv (x, w1)
            b = Relu(a)
            c = Sigmoid(b)
            d = Flatten(c)
            e = MatMul(d, w2)
            logits = Add(e, e)
            unused = Tanh(logits)
            probabilities = Softmax(logits)
        }}
        """
    )
    random = np.random.default_rng(0)
    kind = np.float16 if dtype == "float16" else np.float32
    for name, shape in (("w1", (4, 2, 3, 3)), ("w2", (36, 3))):
        value = random.standard_normal(shape).astype(kind)
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return proto


def classifier(proto: onnx.ModelProto, batch: int | None = None) -> Classifier:
    kind = np.dtype(
        np.float16 if proto.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16 else "f4"
    )
    interface = Interface(
        "x", kind, (batch, 2, 5, 5), batch, "probabilities", "logits", 3, "softmax"
    )
    return Classifier(proto, interface, [])


def samples(count: int = 5, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 2, 5, 5)).astype(dtype)


def broken(
    monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    entry = registry.find("", name, 17)
    assert entry is not None
    monkeypatch.delitem(registry._REGISTRY, ("", name))
    registry.operator(name, since=1, attributes=tuple(entry.attributes), host=tuple(entry.host))(
        lambda node, *inputs: spoil(entry.function(node, *inputs))
    )


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_agreement_is_reported(batch: int | None) -> None:
    proto = model(batch)
    before = proto.SerializeToString(deterministic=True)
    parity = check_parity(classifier(proto, batch), proto, samples())
    assert parity.max_relative_difference < 1e-5
    assert parity.tolerance == 1e-4
    assert parity.samples == 5
    assert proto.SerializeToString(deterministic=True) == before


def test_half_models_have_more_room() -> None:
    proto = model(dtype="float16")
    parity = check_parity(classifier(proto), proto, samples(dtype=np.float16))
    assert 0 < parity.max_relative_difference < parity.tolerance == 2e-2


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize(
    ("operator", "tensor"),
    [("Conv", "a"), ("Relu", "b"), ("Sigmoid", "c"), ("MatMul", "e"), ("Add", "logits")],
)
def test_the_first_tensor_that_differs_is_named(
    monkeypatch: pytest.MonkeyPatch, operator: str, tensor: str, batch: int | None
) -> None:
    broken(monkeypatch, operator, lambda value: value * 1.001)
    proto = model(batch)
    with pytest.raises(ParityError) as caught:
        check_parity(classifier(proto, batch), proto, samples())
    text = str(caught.value)
    assert f"tensor {tensor!r} of {operator} node" in text
    assert "first that differs, by 0.001" in text
    assert "\n" not in text


def test_a_difference_in_one_sample_of_a_late_group_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = samples(7)
    x[:6] = -np.abs(x[:6])
    x[6] = 40.0
    broken(monkeypatch, "Relu", lambda value: torch.where(value > 30, value * 0, value))
    proto = model(2)
    with pytest.raises(ParityError, match=r"tensor 'b' of Relu node"):
        check_parity(classifier(proto, 2), proto, x)


def test_a_nan_on_one_side_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "Sigmoid", lambda value: value / (value > 0.6))
    proto = model()
    with pytest.raises(ParityError, match=r"tensor 'c' of Sigmoid node .* by inf"):
        check_parity(classifier(proto), proto, samples())


def test_a_difference_after_the_logits_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "Softmax", lambda value: value * 2)
    broken(monkeypatch, "Tanh", lambda value: value * 2)
    proto = model()
    assert check_parity(classifier(proto), proto, samples()).max_relative_difference < 1e-5


def test_relative_difference() -> None:
    inf, nan = np.inf, np.nan
    assert relative_difference(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 0.5
    assert relative_difference(np.array([nan, inf, 1.0]), np.array([nan, inf, 1.0])) == 0.0
    assert relative_difference(np.array([nan, 1.0]), np.array([1.0, 1.0])) == inf
    assert relative_difference(np.array([inf, 1.0]), np.array([-inf, 1.0])) == inf
    assert relative_difference(np.array([1e-9]), np.array([0.0])) == inf
    assert relative_difference(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_difference(np.zeros(2), np.zeros(3)) == inf
    assert relative_difference(np.array([True, False]), np.array([True, True])) == 1.0
    assert relative_difference(np.zeros(0), np.zeros(0)) == 0.0
