"""Control flow. Loop and Scan are not executed."""

from __future__ import annotations

from torch import Tensor

from mmbm_onnx.execution.registry import NodeView, operator


@operator(
    "If",
    attributes=("then_branch", "else_branch"),
    host=(0,),
    limits="a condition that depends on sample values is read back from the device",
)
def choose_branch(_: NodeView, condition: Tensor) -> str:
    """The name of the attribute whose graph the executor runs in place of the node."""
    return "then_branch" if bool(condition.reshape(()).item()) else "else_branch"
