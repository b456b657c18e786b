"""Standard operators appended to a graph, in the signature that its opset has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from mmbm_onnx.rewriting.surgeon import Surgeon

# First opsets in which these take their axes as an input (operator changelog).
_AXES_INPUT = {
    "ReduceSum": 13,
    "Squeeze": 13,
    "Unsqueeze": 13,
    "ReduceMax": 18,
    "ReduceMean": 18,
    "ReduceMin": 18,
    "ReduceSumSquare": 18,
}
_SPLIT_INPUT = 13  # so does Split its sizes


class Operators:
    """Appends nodes to the end of a graph, under one name prefix.

    Args:
        surgeon: The model being changed.
        prefix: Put before every new name.
        graph: The graph; None for the main one.
    """

    def __init__(self, surgeon: Surgeon, prefix: str, graph: gs.Graph | None = None) -> None:
        self._surgeon = surgeon
        self._prefix = prefix
        self._graph = surgeon.graph if graph is None else graph

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> gs.Constant:
        """A constant of that type; numbers make it rank 0."""
        return self._surgeon.constant(self._prefix + name, np.array(values, dtype=dtype))

    def add(
        self, op: str, *inputs: gs.Tensor, name: str, output: gs.Tensor = None, **attributes: Any
    ) -> gs.Tensor:
        """Append a node with one output: ``output`` if given, else a new tensor."""
        target = self._surgeon.variable(self._prefix + name) if output is None else output
        self._graph.nodes.append(
            gs.Node(
                op,
                name=self._surgeon.fresh_node(self._prefix + name),
                attrs=attributes,
                inputs=list(inputs),
                outputs=[target],
            )
        )
        return target

    def cast(self, tensor: gs.Tensor, to: int, name: str, output: gs.Tensor = None) -> gs.Tensor:
        """``tensor`` as the ONNX element type ``to``."""
        return self.add("Cast", tensor, name=name, output=output, to=to)

    def reduce(self, op: str, tensor: gs.Tensor, name: str) -> gs.Tensor:
        """``ReduceSum``, ``ReduceMax`` or ``ReduceMin`` over axis 1, which stays with length 1."""
        return self.over(op, tensor, [1], name)

    def top(self, tensor: gs.Tensor, count: int, name: str) -> tuple[gs.Tensor, gs.Tensor]:
        """The largest so many along axis 1, descending, and their indices; opset 10."""
        inputs = [tensor, self.constant(f"{name}_count", [count], np.int64)]
        values, indices = self._several("TopK", inputs, {"axis": 1}, 2, name)
        return values, indices

    def concat(self, tensors: Sequence[gs.Tensor], axis: int, name: str) -> gs.Tensor:
        """These side by side; one alone as it is."""
        return (
            tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, name=name, axis=axis)
        )

    def split(self, tensor: gs.Tensor, sizes: Sequence[int], name: str) -> list[gs.Tensor]:
        """Parts of these sizes along axis 0; one alone is the tensor itself."""
        if len(sizes) == 1:
            return [tensor]
        if self._surgeon.opset < _SPLIT_INPUT:
            given = {"axis": 0, "split": list(sizes)}
            return self._several("Split", [tensor], given, len(sizes), name)
        inputs = [tensor, self.constant(f"{name}_sizes", sizes, np.int64)]
        return self._several("Split", inputs, {"axis": 0}, len(sizes), name)

    def squeeze(self, tensor: gs.Tensor, name: str, output: gs.Tensor = None) -> gs.Tensor:
        """``(n, 1)`` to ``(n,)``."""
        return self._with_axes("Squeeze", tensor, [1], name, output)

    def unsqueeze(self, tensor: gs.Tensor, axis: int, name: str) -> gs.Tensor:
        """With a new axis of length 1."""
        return self._with_axes("Unsqueeze", tensor, [axis], name, None)

    def over(
        self, op: str, tensor: gs.Tensor, axes: list[int], name: str, keepdims: int = 1
    ) -> gs.Tensor:
        """A reduction over some axes."""
        return self._with_axes(op, tensor, axes, name, None, keepdims=keepdims)

    def _several(
        self, op: str, inputs: list[gs.Tensor], attributes: dict[str, Any], count: int, name: str
    ) -> list[gs.Tensor]:
        """Append a node with so many outputs."""
        outputs = [self._surgeon.variable(f"{self._prefix}{name}_{i}") for i in range(count)]
        fresh = self._surgeon.fresh_node(self._prefix + name)
        self._graph.nodes.append(gs.Node(op, fresh, attributes, inputs, outputs))
        return outputs

    def _with_axes(
        self,
        op: str,
        tensor: gs.Tensor,
        axes: list[int],
        name: str,
        output: gs.Tensor,
        **attributes: int,
    ) -> gs.Tensor:
        if self._surgeon.opset < _AXES_INPUT[op]:
            return self.add(op, tensor, name=name, output=output, axes=axes, **attributes)
        given = self.constant(f"{name}_axes", axes, np.int64)
        return self.add(op, tensor, given, name=name, output=output, **attributes)
