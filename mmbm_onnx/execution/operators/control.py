"""Control flow. Scan is not executed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmbm_onnx.errors import UnsupportedOperatorError
from mmbm_onnx.execution.registry import NodeView, operator

MOST_ROUNDS = 10_000
"""Rounds of all Loops in one run; more would not end in any useful time under autograd."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How a Loop starts; the executor runs its body.

    Attributes:
        most: Rounds at most; None for as long as the body says.
        go: Whether there is a first one.
        carried: Values that go into it.
    """

    most: int | None
    go: bool
    carried: tuple[Tensor, ...]


@operator(
    "If",
    attributes=("then_branch", "else_branch"),
    host=(0,),
    limits="a condition that depends on sample values is read back from the device",
)
def choose_branch(_: NodeView, condition: Tensor) -> str:
    """The name of the attribute whose graph the executor runs in place of the node."""
    return "then_branch" if bool(condition.reshape(()).item()) else "else_branch"


@operator(
    "Loop",
    attributes=("body",),
    host=(0, 1),
    limits=f"tensors only; at most {MOST_ROUNDS} rounds of all loops together, at least one where "
    "values are gathered; activations in the body take no bound",
)
def start_loop(
    _: NodeView, most: Tensor | None, condition: Tensor | None, *carried: Tensor | None
) -> Rounds:
    """How the executor runs the body in place of the node.

    Raises:
        UnsupportedOperatorError: A carried value is left out.
    """
    values = tuple(value for value in carried if value is not None)
    if len(values) < len(carried):
        raise UnsupportedOperatorError("a carried value that is left out is not supported")
    go = condition is None or bool(condition.reshape(()).item())
    return Rounds(None if most is None else int(most.reshape(()).item()), go, values)
