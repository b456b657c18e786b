"""ONNX Runtime's own tools that store a graph in fewer bits."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import RewriteError, RuntimeMissingError
from mmbm_onnx.graph.walk import attribute, producers
from mmbm_onnx.runtime.providers import load_onnxruntime, one_line

# Tells the quantizer not to recommend a preparation that folding has made unnecessary.
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def to_int8(
    proto: onnx.ModelProto,
    batches: Sequence[npt.NDArray[np.float32]],
    limits: Mapping[str, float],
) -> onnx.ModelProto:
    """The graph with weights in int8 by channel and activations in uint8, as pairs of
    QuantizeLinear and DequantizeLinear that ONNX Runtime fuses into integer operators.

    Weights use 7 of the 8 bits. Products of 8 bits by 8 overflow in pairs on x86 without VNNI,
    where the graph would then answer something else than on other machines.

    Args:
        proto: A float32 graph with one input, opset 13 or later; not changed.
        batches: Samples ``(n, ...)`` that the ranges of activations are seen on.
        limits: Largest value of some activations, whatever the samples show.

    Raises:
        RewriteError: The graph cannot be quantized.
        RuntimeMissingError: ONNX Runtime, or what its quantizer needs, is missing.
    """
    tool = _tool("onnxruntime.quantization", "quantizer")
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    source.metadata_props.add(key=_PREPARED[0], value=_PREPARED[1])
    left = _left_in_float(source.graph)
    ranges = {name: [{"rmax": np.array(limit, np.float32)}] for name, limit in limits.items()}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(source, before)
        try:
            tool.quantize_static(
                before,
                after,
                _Reader({proto.graph.input[0].name: batch} for batch in batches),
                quant_format=tool.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
                nodes_to_exclude=left,
                extra_options={"TensorQuantOverrides": ranges},
            )
        except (ValueError, RuntimeError) as error:  # its two ways to say what it cannot do
            raise RewriteError(f"ONNX Runtime cannot quantize: {one_line(error)}") from error
        found = onnx.load(after)
    if list(found.opset_import) != list(proto.opset_import):
        raise RewriteError("ONNX Runtime quantizes it with other operator sets")
    return found


def _left_in_float(graph: onnx.GraphProto) -> list[str]:
    """Names of nodes, given here, that the quantizer breaks off at or makes other nodes of:
    transposed convolutions of groups, whose scales by channel it cannot lay out, and Gemm that adds
    something else than a vector, or times a factor."""
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    left = []
    for index, node in enumerate(graph.node):
        if node.op_type == "ConvTranspose":
            odd = attribute(node, "group", 1) != 1
        elif node.op_type == "Gemm":
            odd = attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
            odd |= (
                len(node.input) > 2
                and bool(node.input[2])
                and len(shapes.get(node.input[2], ())) != 1
            )
        else:
            continue
        if odd:
            node.name = f"{index}/{node.output[0]}"
            left.append(node.name)
    return left


def to_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with weights and activations in float16, input and outputs in float32.

    Args:
        proto: A float32 graph; not changed.

    Raises:
        RewriteError: The graph cannot be converted.
        RuntimeMissingError: ONNX Runtime, or what its converter needs, is missing.
    """
    tool = _tool("onnxruntime.transformers.float16", "converter")
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    with _quiet():
        try:
            found: onnx.ModelProto = tool.convert_float_to_float16(source, keep_io_types=True)
        except (ValueError, RuntimeError) as error:
            raise RewriteError(f"ONNX Runtime cannot convert: {one_line(error)}") from error
    _sort(found.graph)
    return found


def _tool(module: str, what: str) -> ModuleType:
    """A module of ONNX Runtime's that may lack what it needs."""
    load_onnxruntime()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeMissingError(f"this ONNX Runtime has no {what}: {one_line(error)}") from error


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those it reads from: the converter appends its casts."""
    made_by = producers(graph)
    rest = list(graph.node)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    while rest:
        node = rest[0]
        missing = [made_by[name] for name in node.input if name in made_by and name not in done]
        if missing:
            rest.insert(0, missing[0])
        else:
            if done.isdisjoint(node.output):
                nodes.append(node)
                done.update(node.output)
            del rest[0]
    ordered = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(ordered.node)


class _Reader:
    """What the quantizer takes samples from."""

    def __init__(self, feeds: Iterator[dict[str, npt.NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._feeds, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the tools' remarks, which go to the root logger, off stderr."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
