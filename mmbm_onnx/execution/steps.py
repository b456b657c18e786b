"""Graph nodes made ready to run: implementation found, attributes read, names resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import torch

from mmbm_onnx.errors import MmbmError, ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.attributes import read_attributes, schema_of
from mmbm_onnx.execution.registry import NodeView, Operator, find
from mmbm_onnx.graph.walk import RUNTIME_DOMAINS, UNOPTIMIZED


@dataclass(frozen=True, slots=True)
class Step:
    """One node.

    Attributes:
        label: Operator, node and output tensor, for messages.
        inputs: Input tensor names, "" where omitted.
        outputs: Output tensor names, "" where omitted.
        view: What the implementation sees; None if the node cannot be executed.
        operator: Its implementation; None likewise.
        error: Why the node cannot be executed; raised only if its result is needed.
        subgraphs: Graph attributes by name.
    """

    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    view: NodeView | None = None
    operator: Operator | None = None
    error: MmbmError | None = None
    subgraphs: Mapping[str, onnx.GraphProto] = field(default_factory=dict)

    def call(self, inputs: list[torch.Tensor | None]) -> object:
        """What the implementation returns for ``inputs``.

        Raises:
            UnsupportedOperatorError: The implementation refuses; the message names the node.
            ModelError: The implementation failed; likewise.
        """
        assert self.view is not None
        assert self.operator is not None
        try:
            return self.operator.function(self.view, *inputs)
        except UnsupportedOperatorError as error:
            raise UnsupportedOperatorError(f"{self.label}: {error}") from error
        except ModelError as error:
            raise ModelError(f"{self.label}: {error}") from error
        except (torch.OutOfMemoryError, MemoryError):
            # Nothing is wrong with the model; a caller may retry with a smaller batch.
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300] or type(error).__name__
            if "can't allocate memory" in text:  # torch's words on the CPU, in a RuntimeError
                raise MemoryError(f"{self.label}: {text}") from error
            raise ModelError(f"{self.label} failed: {text}") from error

    def named(self, result: object) -> dict[str, torch.Tensor]:
        """The implementation's result by output name.

        Raises:
            ModelError: An output that the node names was not computed.
        """
        values = result if isinstance(result, tuple) else (result,)
        tensors: dict[str, torch.Tensor] = {}
        for index, name in enumerate(self.outputs):
            if not name:
                continue
            value = values[index] if index < len(values) else None
            if not isinstance(value, torch.Tensor):
                raise UnsupportedOperatorError(f"{self.label}: output {index} is not supported")
            tensors[name] = value
        return tensors


def describe(node: onnx.NodeProto) -> str:
    """Operator, node name where there is one, and first output tensor."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    output = next((name for name in node.output if name), "")
    name = f" {node.name!r}" if node.name else ""
    return f"{operator} node{name} (output {output!r})"


def make_step(node: onnx.NodeProto, opsets: Mapping[str, int], promote_half: bool) -> Step:
    """The step of a node; what keeps it from running is held in ``Step.error``."""
    label = describe(node)
    inputs, outputs = tuple(node.input), tuple(node.output)
    subgraphs = {
        attribute.name: attribute.g
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    }
    domain = "" if node.domain == "ai.onnx" else node.domain
    opset = opsets.get(domain)
    error: MmbmError
    if opset is None:
        error = ModelError(f"{label}: the model imports no opset of domain {domain!r}")
        return Step(label, inputs, outputs, error=error, subgraphs=subgraphs)
    operator = find(domain, node.op_type, opset)
    if operator is None:
        advice = f"; {UNOPTIMIZED}" if domain in RUNTIME_DOMAINS else ""
        error = UnsupportedOperatorError(
            f"{label}: the operator has no differentiable implementation at opset {opset}{advice}"
        )
        return Step(label, inputs, outputs, error=error, subgraphs=subgraphs)
    try:
        attributes = read_attributes(
            node, schema_of(domain, node.op_type, opset), operator.attributes
        )
    except MmbmError as refused:
        error = type(refused)(f"{label}: {refused}")
        return Step(label, inputs, outputs, error=error, subgraphs=subgraphs)
    view = NodeView(
        node.op_type, node.name, opset, attributes, inputs, outputs, promote_half=promote_half
    )
    return Step(label, inputs, outputs, view, operator, None, subgraphs)
