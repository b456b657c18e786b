"""Protos taken apart and put together without copying weights more than needed."""

from __future__ import annotations

from typing import Any

import onnx
from google.protobuf.message import Message

from mmbm_onnx.errors import RewriteError


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model's topology: nodes, names and subgraphs, with no weights, types or attributes."""
    model = onnx.ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    _thin_graph(proto.graph, model.graph)
    return model


def _thin_graph(body: onnx.GraphProto, into: onnx.GraphProto) -> None:
    into.name = body.name
    into.input.extend(onnx.ValueInfoProto(name=info.name) for info in body.input)
    into.output.extend(onnx.ValueInfoProto(name=info.name) for info in body.output)
    for node in body.node:
        thin = into.node.add(op_type=node.op_type, name=node.name, domain=node.domain)
        thin.input.extend(node.input)
        thin.output.extend(node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPHS:
                raise RewriteError(
                    f"node {node.name or node.op_type!r}: attribute {attribute.name!r} holds a "
                    "list of graphs, which cannot be rewritten"
                )
            if attribute.type == onnx.AttributeProto.GRAPH:
                slot = thin.attribute.add(name=attribute.name, type=attribute.type)
                _thin_graph(attribute.g, slot.g)


def copy_fields(source: Any, target: Any, skip: tuple[str, ...]) -> None:
    """Copy every field that is set, but those named in ``skip``, into an empty message."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            getattr(target, field.name).extend(value)
