"""RNN, GRU and LSTM against ONNX Runtime: directions, states, layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from operator_checks import assert_agrees, assert_differentiable, assert_maps, noise, one_node

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.executor import GraphExecutor

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6


def cell(
    op_type: str,
    *,
    opset: int = 14,
    direction: str = "forward",
    bias: bool = True,
    lengths: list[int] | None = None,
    states: bool = False,
    peepholes: bool = False,
    batch: int = BATCH,
    dtype: Any = np.float32,
    **attributes: Any,
) -> tuple[Any, np.ndarray]:
    """A model of one recurrent node and an input for it."""
    directions = 2 if direction == "bidirectional" else 1
    width = GATES[op_type] * HIDDEN
    first = bool(attributes.get("layout"))
    x = noise(*((batch, STEPS) if first else (STEPS, batch)), FEATURES, dtype=dtype)
    shape = (batch, directions, HIDDEN) if first else (directions, batch, HIDDEN)
    constants: list[np.ndarray | None] = [
        noise(directions, width, FEATURES, seed=1, dtype=dtype) / 2,
        noise(directions, width, HIDDEN, seed=2, dtype=dtype) / 2,
        noise(directions, 2 * width, seed=3, dtype=dtype) if bias else None,
        None if lengths is None else np.array(lengths, np.int32),
        noise(*shape, seed=4, dtype=dtype) if states else None,
    ]
    outputs = ["y", "y_h"]
    if op_type == "LSTM":
        constants.append(noise(*shape, seed=5, dtype=dtype) if states else None)
        constants.append(noise(directions, 3 * HIDDEN, seed=6, dtype=dtype) if peepholes else None)
        outputs.append("y_c")
    model = one_node(
        op_type,
        x,
        *constants,
        opset=opset,
        outputs=outputs,
        direction=direction,
        hidden_size=HIDDEN,
        **attributes,
    )
    return model, x


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("opset", [7, 14])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(op_type: str, direction: str, opset: int, states: bool, bias: bool) -> None:
    given: dict[str, Any] = {}
    if op_type == "RNN" and direction == "bidirectional":
        given["activations"] = ["Tanh", "Relu"]
    model, x = cell(op_type, direction=direction, opset=opset, states=states, bias=bias, **given)
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("linear", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_gru_reset_gate(linear: int, direction: str) -> None:
    model, x = cell("GRU", direction=direction, linear_before_reset=linear, states=True)
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {"peepholes": True, "states": True},
        {"clip": 0.3},
        {"activations": ["Sigmoid", "Relu", "Tanh"]},
        {"lengths": [STEPS] * BATCH},
    ],
    ids=str,
)
def test_lstm_options(given: dict[str, Any]) -> None:
    model, x = cell("LSTM", **given)
    assert_agrees(model, x, tolerance=1e-4)


@pytest.mark.parametrize("op_type", GATES)
def test_batch_first_is_the_same_transposed(op_type: str) -> None:
    model, x = cell(op_type, layout=1, states=True)
    other, _ = cell(op_type, layout=0, states=True)
    for place, value in enumerate(other.graph.initializer):
        if value.dims[:2] == [1, BATCH]:
            value.CopyFrom(model.graph.initializer[place])
            value.dims[:2] = [1, BATCH]
    first = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y", "y_h"])
    last = GraphExecutor(other).run({"x": torch.from_numpy(x.swapaxes(0, 1).copy())}, ["y", "y_h"])
    torch.testing.assert_close(first["y"], last["y"].permute(2, 0, 1, 3))
    torch.testing.assert_close(first["y_h"], last["y_h"].transpose(0, 1))


@pytest.mark.parametrize("op_type", GATES)
def test_maps_and_differentiates(op_type: str) -> None:
    model, x = cell(op_type, batch=1, dtype=np.float64, states=True)
    assert_maps(model, x)
    assert_differentiable(model, x)


@pytest.mark.parametrize("op_type", GATES)
def test_refuses_shorter_sequences_and_unknown_activations(op_type: str) -> None:
    names = ["HardSigmoid"] * {"RNN": 1, "GRU": 2, "LSTM": 3}[op_type]
    for given in ({"lengths": [STEPS, STEPS - 1, STEPS]}, {"activations": names}):
        model, x = cell(op_type, **given)
        with pytest.raises(UnsupportedOperatorError):
            GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y"])
