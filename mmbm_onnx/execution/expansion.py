"""A graph without function calls: local functions and schema functions are inlined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx
import onnx.inliner

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.attributes import schema_defaults, schema_of
from mmbm_onnx.execution.registry import find

# Constants above this many elements do not travel through the inliner, which serialises the model.
_LARGE = 1024
# Bodies call functions in turn; ONNX nests them three deep at most.
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Expanded:
    """A graph of plain operators.

    Attributes:
        graph: The graph; it may share nodes with the model it came from, so do not change it.
        constants: Initializers of the main graph by name, not copied.
        opsets: Version by operator domain.
    """

    graph: onnx.GraphProto
    constants: dict[str, onnx.TensorProto]
    opsets: dict[str, int]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph and of the subgraphs in its nodes' attributes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def expand(model: onnx.ModelProto) -> Expanded:
    """The model's graph with every function call replaced by the function's body.

    Calls of the model's own functions are inlined always; an operator of the ONNX standard that
    has no registered implementation is replaced by the body its schema gives, if it gives one.
    The model is not changed, and its large constants are not copied.

    Raises:
        UnsupportedOperatorError: The graph has sparse initializers.
        ModelError: A function cannot be inlined.
    """
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise UnsupportedOperatorError(f"sparse initializer {name!r} is not supported")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    opsets = _opsets(model)
    if not model.functions and not _expandable(model.graph, opsets):
        return Expanded(model.graph, constants, opsets)

    light, lifted = _without_large_constants(model)
    if light.functions:
        try:
            light = onnx.inliner.inline_local_functions(light)
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise ModelError(f"functions of the model cannot be inlined: {text}") from error
    refused: set[tuple[str, str]] = set()
    for _ in range(_ROUNDS):
        opsets = _opsets(light)
        names = _expandable(light.graph, opsets) - refused
        if not names:
            break
        _spell_out_defaults(light.graph, names, opsets)
        for entry in sorted(names):
            try:
                light = onnx.inliner.inline_selected_functions(
                    light, [entry], exclude=False, inline_schema_functions=True
                )
            except (RuntimeError, ValueError):
                # Its nodes stay, and are refused by name if their results are needed.
                refused.add(entry)
    constants.update(lifted)
    constants.update({tensor.name: tensor for tensor in light.graph.initializer})
    return Expanded(light.graph, constants, _opsets(light))


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {_plain(entry.domain): entry.version for entry in model.opset_import}


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _expandable(graph: onnx.GraphProto, opsets: dict[str, int]) -> set[tuple[str, str]]:
    """Operators of the graph that have no implementation but a function body."""
    names = set()
    for node in all_nodes(graph):
        domain = _plain(node.domain)
        opset = opsets.get(domain)
        if opset is None or find(domain, node.op_type, opset) is not None:
            continue
        schema = schema_of(domain, node.op_type, opset)
        if schema is not None and has_body(schema):
            names.add((domain, node.op_type))
    return names


def has_body(schema: onnx.defs.OpSchema) -> bool:
    """Whether the ONNX standard defines an operator by a function of others."""
    # Both exist at run time; the type stubs of onnx lack them.
    static: bool = schema.has_function  # type: ignore[attr-defined]
    built: bool = schema.has_context_dependent_function  # type: ignore[attr-defined]
    return static or built


def _spell_out_defaults(
    graph: onnx.GraphProto, names: set[tuple[str, str]], opsets: dict[str, int]
) -> None:
    """Write omitted attributes into the nodes: the inliner leaves references to them empty."""
    for node in all_nodes(graph):
        domain = _plain(node.domain)
        if (domain, node.op_type) not in names:
            continue
        present = {attribute.name for attribute in node.attribute}
        for name, default in schema_defaults(
            schema_of(domain, node.op_type, opsets[domain])
        ).items():
            if name not in present:
                node.attribute.append(default)


def _without_large_constants(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """A copy in which large constants are graph inputs, and those constants by name."""
    light = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    declared = {value.name for value in graph.input}
    lifted: dict[str, onnx.TensorProto] = {}

    def lift(name: str, tensor: onnx.TensorProto) -> None:
        lifted[name] = tensor
        if name not in declared:
            declared.add(name)
            graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            )

    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _LARGE:
            lift(tensor.name, tensor)
        else:
            graph.initializer.append(tensor)
    for node in model.graph.node:
        value = _constant_value(node)
        if value is not None and prod(value.dims) > _LARGE:
            lift(node.output[0], value)
        else:
            graph.node.append(node)
    return light, lifted


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or _plain(node.domain):
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
