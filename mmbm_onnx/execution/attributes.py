"""Node attributes: proto to Python, schema defaults filled in, unread ones refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, numpy_helper

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError

_REFUSED = {
    AttributeProto.SPARSE_TENSOR: "a sparse tensor",
    AttributeProto.SPARSE_TENSORS: "a list of sparse tensors",
    AttributeProto.TYPE_PROTO: "a type",
    AttributeProto.TYPE_PROTOS: "a list of types",
    AttributeProto.TENSORS: "a list of tensors",
    AttributeProto.GRAPHS: "a list of graphs",
}


def python_value(attribute: AttributeProto) -> Any:
    """The attribute as int, float, str, list of these, ``numpy.ndarray`` or ``GraphProto``.

    Raises:
        UnsupportedOperatorError: It holds a kind of value that no implementation reads.
        ModelError: It refers to a function's attribute outside of a function.
    """
    if attribute.ref_attr_name:
        raise ModelError(
            f"attribute {attribute.name!r} refers to {attribute.ref_attr_name!r}, "
            "which is only possible inside a function"
        )
    if attribute.type in _REFUSED:
        raise UnsupportedOperatorError(
            f"attribute {attribute.name!r} holds {_REFUSED[attribute.type]}"
        )
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [item.decode("utf-8", "replace") for item in value]
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
        return list(value)
    return value


def schema_of(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The schema of an operator at an opset version, or None where ONNX knows none."""
    domain = "" if domain == "ai.onnx" else domain
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def schema_defaults(schema: onnx.defs.OpSchema | None) -> dict[str, AttributeProto]:
    """The default of every attribute of the schema that has one."""
    if schema is None:
        return {}
    return {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != AttributeProto.UNDEFINED
    }


def read_attributes(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema | None, read: frozenset[str]
) -> dict[str, Any]:
    """Every attribute of ``node`` by name, with the schema's defaults for those it omits.

    Args:
        node: The node; its operator's ``schema``, if ONNX has one.
        schema: Where defaults come from.
        read: Names of the attributes that the implementation honours.

    Raises:
        UnsupportedOperatorError: An attribute outside ``read`` differs from its default, so that
            ignoring it would give wrong results.
    """
    defaults = {name: python_value(proto) for name, proto in schema_defaults(schema).items()}
    values = dict(defaults)
    for attribute in node.attribute:
        value = python_value(attribute)
        if attribute.name not in read and not _same(value, defaults.get(attribute.name)):
            shown = value if isinstance(value, int | float | str | list) else "..."
            raise UnsupportedOperatorError(f"attribute {attribute.name}={shown} is not supported")
        values[attribute.name] = value
    return values


def _same(value: Any, default: Any) -> bool:
    if default is None or type(value) is not type(default):
        return False
    if isinstance(value, np.ndarray):
        return np.array_equal(value, default)
    return bool(value == default)
