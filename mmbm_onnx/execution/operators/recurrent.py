"""RNN, GRU and LSTM as a plain loop over time, differentiable and free of fused kernels.

Source: ONNX operator specification, RNN, GRU and LSTM; the equations are those of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
_ATTRIBUTES = ("activations", "clip", "direction", "hidden_size", "layout")
_LIMITS = "activations Sigmoid, Tanh and Relu; sequence_lens only when every sequence is full"

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What the directions of one node share.

    Attributes:
        x: Input, (steps, n, features).
        directions: For each, whether it runs from the end.
        hidden: Length of the hidden state.
        batch_first: Layout 1: states and outputs have the batch first.
    """

    x: Tensor
    directions: tuple[bool, ...]
    hidden: int
    batch_first: bool

    def initial(self, state: Tensor | None, direction: int) -> Tensor:
        """Initial state of a direction, (n, hidden): zeros unless given."""
        n = self.x.shape[1]
        if state is None:
            return torch.zeros((n, self.hidden), dtype=self.x.dtype, device=self.x.device)
        stacked = state.transpose(0, 1) if self.batch_first else state
        if tuple(stacked.shape) != (len(self.directions), n, self.hidden):
            raise ModelError(
                f"initial state has shape {list(state.shape)} for {len(self.directions)} "
                f"directions, {n} sequences and {self.hidden} hidden units"
            )
        return stacked[direction]

    def outputs(self, outputs: Sequence[Tensor], lasts: Sequence[State]) -> tuple[Tensor, ...]:
        """Y (steps, directions, n, hidden) and the last states, in the node's layout."""
        y = torch.stack(list(outputs), dim=1)
        states = [torch.stack(list(parts), dim=0) for parts in zip(*lasts, strict=True)]
        if self.batch_first:
            return (y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in states))
        return (y, *states)


def _open(
    node: NodeView, x: Tensor, weight: Tensor, gates: int, lengths: Tensor | None
) -> _Sequence:
    batch_first = bool(node.get("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    if lengths is not None and any(length != x.shape[0] for length in lengths.tolist()):
        raise UnsupportedOperatorError(
            f"sequence_lens is executed only when every sequence has all {x.shape[0]} steps"
        )
    directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    direction = node.get("direction", "forward")
    if direction not in directions:
        raise UnsupportedOperatorError(f"direction {direction!r} is not in the ONNX specification")
    hidden = weight.shape[1] // gates
    if int(node.get("hidden_size", hidden)) != hidden:
        raise ModelError(f"hidden_size {node.get('hidden_size')} is not the weight's {hidden}")
    if weight.shape[0] != len(directions[direction]):
        raise ModelError(f"weight has {weight.shape[0]} directions, the node is {direction}")
    return _Sequence(x, directions[direction], hidden, batch_first)


def _functions(
    node: NodeView, defaults: tuple[str, ...], directions: int
) -> list[list[Callable[[Tensor], Tensor]]]:
    """Activation functions of every direction; ``clip`` bounds what they are given."""
    wanted = len(defaults) * directions
    # RNN's schema names two activations by default, whatever the direction.
    names = (node.get("activations") or list(defaults) * directions)[:wanted]
    if len(names) != wanted:
        raise ModelError(f"{len(names)} activations for {directions} directions")
    unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
    if unknown:
        raise UnsupportedOperatorError(f"activation {unknown[0]!r}; executed: Sigmoid, Tanh, Relu")
    limit = node.get("clip")

    def clipped(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if limit is None:
            return function
        return lambda value: function(value.clamp(-float(limit), float(limit)))

    made = [clipped(_ACTIVATIONS[name.lower()]) for name in names]
    each = len(defaults)
    return [made[place : place + each] for place in range(0, len(made), each)]


def _biases(
    bias: Tensor | None, direction: int, width: int
) -> tuple[Tensor | float, Tensor | float]:
    """Input and recurrence bias of a direction, each ``(width,)``."""
    if bias is None:
        return 0.0, 0.0
    return bias[direction, :width], bias[direction, width:]


def _scan(projected: Tensor, backwards: bool, state: State, step: Step) -> tuple[Tensor, State]:
    """All hidden states (steps, n, hidden) in the order of time, and the last state."""
    steps = projected.shape[0]
    hidden: list[Tensor] = []
    for time in reversed(range(steps)) if backwards else range(steps):
        state = step(projected[time], state)
        hidden.append(state[0])
    if backwards:
        hidden.reverse()
    return torch.stack(hidden), state


@operator("RNN", since=7, attributes=_ATTRIBUTES, host=(4,), limits=_LIMITS)
def rnn(
    node: NodeView,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Simple recurrent network; Y and the last hidden state."""
    run = _open(node, x, weight, 1, lengths)
    functions = _functions(node, ("Tanh",), len(run.directions))
    outputs, lasts = [], []
    for d, backwards in enumerate(run.directions):
        (activate,) = functions[d]
        w_bias, r_bias = _biases(bias, d, run.hidden)
        r = recurrence[d].T

        def step(
            given: Tensor,
            state: State,
            r: Tensor = r,
            activate: Callable[[Tensor], Tensor] = activate,
        ) -> State:
            return (activate(given + state[0] @ r),)

        projected = run.x @ weight[d].T + w_bias + r_bias
        y, last = _scan(projected, backwards, (run.initial(initial, d),), step)
        outputs.append(y)
        lasts.append(last)
    return run.outputs(outputs, lasts)


@operator(
    "GRU", since=7, attributes=(*_ATTRIBUTES, "linear_before_reset"), host=(4,), limits=_LIMITS
)
def gru(
    node: NodeView,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gated recurrent unit, gates in the order update, reset, hidden; Y and the last state."""
    run = _open(node, x, weight, 3, lengths)
    functions = _functions(node, ("Sigmoid", "Tanh"), len(run.directions))
    size = run.hidden
    linear = bool(node.get("linear_before_reset", 0))
    outputs, lasts = [], []
    for d, backwards in enumerate(run.directions):
        cell = _gru_step(recurrence[d], _biases(bias, d, 3 * size)[1], functions[d], size, linear)
        projected = run.x @ weight[d].T + _biases(bias, d, 3 * size)[0]
        y, last = _scan(projected, backwards, (run.initial(initial, d),), cell)
        outputs.append(y)
        lasts.append(last)
    return run.outputs(outputs, lasts)


def _gru_step(
    recurrence: Tensor,
    bias: Tensor | float,
    functions: list[Callable[[Tensor], Tensor]],
    size: int,
    linear: bool,
) -> Step:
    gate, activate = functions
    gates, candidate = recurrence[: 2 * size].T, recurrence[2 * size :].T
    gate_bias = bias[: 2 * size] if isinstance(bias, Tensor) else bias
    candidate_bias = bias[2 * size :] if isinstance(bias, Tensor) else bias

    def step(given: Tensor, state: State) -> State:
        (h,) = state
        update, reset = gate(given[:, : 2 * size] + h @ gates + gate_bias).chunk(2, dim=1)
        if linear:
            recurrent = reset * (h @ candidate + candidate_bias)
        else:
            recurrent = (reset * h) @ candidate + candidate_bias
        fresh = activate(given[:, 2 * size :] + recurrent)
        return ((1 - update) * fresh + update * h,)

    return step


@operator("LSTM", since=7, attributes=(*_ATTRIBUTES, "input_forget"), host=(4,), limits=_LIMITS)
def lstm(
    node: NodeView,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    initial_cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Long short-term memory, gates in the order input, output, forget, cell; Y, Y_h and Y_c."""
    run = _open(node, x, weight, 4, lengths)
    functions = _functions(node, ("Sigmoid", "Tanh", "Tanh"), len(run.directions))
    coupled = bool(node.get("input_forget", 0))
    outputs, lasts = [], []
    for d, backwards in enumerate(run.directions):
        w_bias, r_bias = _biases(bias, d, 4 * run.hidden)
        looks = None if peepholes is None else peepholes[d]
        cell = _lstm_step(recurrence[d], functions[d], looks, coupled)
        projected = run.x @ weight[d].T + w_bias + r_bias
        state = (run.initial(initial, d), run.initial(initial_cell, d))
        y, last = _scan(projected, backwards, state, cell)
        outputs.append(y)
        lasts.append(last)
    return run.outputs(outputs, lasts)


def _lstm_step(
    recurrence: Tensor,
    functions: list[Callable[[Tensor], Tensor]],
    peepholes: Tensor | None,
    coupled: bool,
) -> Step:
    gate, activate, emit = functions
    r = recurrence.T
    looks = None if peepholes is None else peepholes.chunk(3)

    def step(given: Tensor, state: State) -> State:
        h, c = state
        enter, leave, forget, fresh = (given + h @ r).chunk(4, dim=1)
        if looks is not None:
            enter, forget = enter + looks[0] * c, forget + looks[2] * c
        enter = gate(enter)
        forget = 1 - enter if coupled else gate(forget)
        c = forget * c + enter * activate(fresh)
        if looks is not None:
            leave = leave + looks[1] * c
        return gate(leave) * emit(c), c

    return step
