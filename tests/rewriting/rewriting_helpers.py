"""Small models, their sites, and ONNX Runtime, for the tests of the rewriting room."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import numpy_helper

from mmbm_onnx.types import Bounds, Interface, Site

ONNX_TYPES = {
    np.dtype(np.float16): "float16",
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
}


def parse(text: str, opset: int = 17, ir: int = 8, **weights: np.ndarray) -> onnx.ModelProto:
    """A model in ONNX text syntax, its weights given as arrays."""
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]> {text}')
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def session(proto: onnx.ModelProto, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(proto.SerializeToString(), options, providers=providers)


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return session(proto).run(None, feeds)


def run_named(proto: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    opened = session(proto)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, feeds), strict=True))


def serialized(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def unchanged(proto: onnx.ModelProto) -> onnx.ModelProto:
    return copy.deepcopy(proto)


def site(
    tensor: str,
    channels: int | None = None,
    *,
    kind: Any = "Relu",
    dtype: Any = np.float32,
    rank: int | None = 2,
    axis: int | None = 1,
    upper: float | None = None,
    scope: str = "",
) -> Site:
    return Site(tensor, kind, np.dtype(dtype), rank, axis, channels, upper, scope)


def relu_sites(proto: onnx.ModelProto) -> list[Site]:
    """Every Relu of the main graph, its channels on axis 1."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    infos = {info.name: info.type.tensor_type for info in (*inferred.value_info, *inferred.output)}
    sites = []
    for node in proto.graph.node:
        if node.op_type == "Relu":
            kind = infos[node.output[0]]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            dims = kind.shape.dim
            sites.append(site(node.output[0], dims[1].dim_value, dtype=dtype, rank=len(dims)))
    return sites


def random_bounds(
    sites: Sequence[Site], rng: np.random.Generator, low: float = 0.1, high: float = 1.0
) -> Bounds:
    return Bounds(
        {
            item.tensor: rng.uniform(low, high, item.channels or ()).astype(np.float32)
            for item in sites
        }
    )


def interface(
    classes: int,
    *,
    input: str = "x",
    output: str = "logits",
    logits: str | None = None,
    batch: int | None = None,
    dtype: Any = np.float32,
    shape: tuple[int | None, ...] = (),
    head: Any = "logits",
) -> Interface:
    return Interface(
        input, np.dtype(dtype), (batch, *shape), batch, output, logits or output, classes, head
    )


def elementwise(
    classes: int,
    dtype: Any = np.float32,
    opset: int = 17,
    shift: float = 0.0,
    head: str = "",
    outputs: str = "",
    batch: str = "N",
    ir: int = 8,
) -> onnx.ModelProto:
    """logits = Relu(x) - shift: every number in it can be chosen exactly by the test.

    ``head`` adds nodes behind the logits, ``outputs`` the graph outputs they produce; without
    them the logits are the output.
    """
    kind = ONNX_TYPES[np.dtype(dtype)]
    weight = f", {kind}[{classes}] shift" if ir < 4 else ""  # then weights are inputs too
    outputs = outputs or f"{kind}[{batch}, {classes}] logits"
    return parse(
        f"""
        toy ({kind}[{batch}, {classes}] x{weight}) => ({outputs}) {{
            act = Relu(x)
            logits = Sub(act, shift)
            {head}
        }}
        """,
        opset=opset,
        ir=ir,
        shift=np.full(classes, shift, dtype),
    )


def ops(nodes: Mapping[str, Any] | Any) -> list[str]:
    return [node.op_type for node in nodes]
