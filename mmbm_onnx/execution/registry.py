"""Which function executes which ONNX operator, by domain, name and opset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch

Value = torch.Tensor | None
Implementation = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as an operator's implementation sees it.

    Attributes:
        op_type: Operator name.
        name: Node name, possibly blank; messages use the first output's name.
        opset: Version of the operator's domain that the model imports.
        attributes: Attribute name to Python value: int, float, str, list, ``numpy.ndarray`` for
            tensors, ``onnx.GraphProto`` for graphs. Attributes that the node omits carry the
            schema's default; optional ones without a default are absent.
        inputs: Input tensor names, "" where an optional input is omitted.
        outputs: Output tensor names, "" where an optional output is omitted.
        promote_half: True when float16 and bfloat16 are computed in float32.
    """

    op_type: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    promote_half: bool = True

    def get(self, attribute: str, default: Any = None) -> Any:
        """The attribute's value, or ``default`` where neither node nor schema gives one."""
        return self.attributes.get(attribute, default)

    def wants(self, output: int) -> bool:
        """Whether the node names its output number ``output``."""
        return output < len(self.outputs) and bool(self.outputs[output])

    def torch_dtype(self, elem_type: int) -> torch.dtype:
        """The torch dtype that an ONNX element type is executed in.

        Raises:
            KeyError: torch has no such type.
        """
        dtype = TORCH_DTYPES[elem_type]
        if self.promote_half and dtype in (torch.float16, torch.bfloat16):
            return torch.float32
        return dtype


@dataclass(frozen=True, slots=True)
class Operator:
    """One registered implementation.

    Attributes:
        name: ONNX operator name.
        domain: ONNX domain, "" for the standard one.
        since: First opset version the implementation is right for.
        function: Called as ``function(node, *inputs)``; omitted inputs are None. Returns a tensor,
            or a tuple with one entry per output. Never changes an input in place, and must work
            under ``torch.func.vmap`` (no data-dependent Python on samples, no ``.item()``).
        attributes: Attribute names that it reads. Any other is refused unless it equals the
            schema's default.
        host: Positions of the inputs it reads as Python numbers (shapes, axes, ...); they arrive
            as CPU tensors, so that no device synchronisation is needed.
        limits: What it refuses, in words, for the operator table.
    """

    name: str
    domain: str
    since: int
    function: Implementation
    attributes: frozenset[str]
    host: frozenset[int]
    limits: str = ""


TORCH_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}

_REGISTRY: dict[tuple[str, str], list[Operator]] = {}


def operator(
    name: str,
    *,
    since: int = 1,
    attributes: tuple[str, ...] = (),
    host: tuple[int, ...] = (),
    domain: str = "",
    limits: str = "",
) -> Callable[[Implementation], Implementation]:
    """Register the decorated function as the implementation of an operator from ``since`` on.

    A later registration of the same operator with a higher ``since`` takes over from that opset.
    The same function may be registered under several names and versions.

    Raises:
        ValueError: The same operator and ``since`` are registered twice.
    """

    def register(function: Implementation) -> Implementation:
        versions = _REGISTRY.setdefault((domain, name), [])
        if any(other.since == since for other in versions):
            raise ValueError(f"{domain or 'ai.onnx'}::{name} since {since} is registered twice")
        versions.append(
            Operator(name, domain, since, function, frozenset(attributes), frozenset(host), limits)
        )
        versions.sort(key=lambda entry: entry.since)
        return function

    return register


def find(domain: str, name: str, opset: int) -> Operator | None:
    """The implementation for an operator at an opset version, or None."""
    domain = "" if domain == "ai.onnx" else domain
    found = None
    for entry in _REGISTRY.get((domain, name), []):
        if entry.since <= opset:
            found = entry
    return found


def registered() -> list[Operator]:
    """Every registered implementation, sorted by domain, name and version."""
    return [entry for key in sorted(_REGISTRY) for entry in _REGISTRY[key]]
