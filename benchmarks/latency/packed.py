"""Graphs built on one machine and timed on another, without their large weights.

Time does not depend on what weights are, so noise of the same mean and spread takes their place
where the graphs are timed. What a detector in two stages makes of a sample does depend on them: the
first value of its input decides in their place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.latency.graphs import IS_ODD
from benchmarks.latency.networks import Network
from mmbm_onnx.graph.walk import tensors

_LARGE = 2048  # elements
_NOISE = 1 << 20  # numbers that are repeated
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_NEVER, _LIMIT = 1e9, 1.5
ODD = 2.0
"""First value of a sample that goes on; others are in the unit interval."""


def pack(network: Network, made: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Write graphs without their large weights.

    Args:
        network: The original, which is one of them.
        made: Role to graph; detectors in two stages have roles that begin with ``detector``.
        folder: Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for role, proto in made.items():
        graph = _steered(proto) if role.startswith("detector") else proto
        onnx.save(_without_weights(graph), folder / f"{role}.onnx")
    told = {"shape": network.shape, "graphs": list(made)}
    (folder / "packed.json").write_text(json.dumps(told) + "\n")


def unpack(folder: Path) -> tuple[Network, dict[str, onnx.ModelProto]]:
    """The original and the graphs of ``pack``, with noise for weights."""
    told = json.loads((folder / "packed.json").read_text())
    made = {role: _with_noise(onnx.load(folder / f"{role}.onnx")) for role in told["graphs"]}
    return Network(made["original"], tuple(told["shape"])), made


def odd(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Samples ``(n, ...)`` as ones that go on."""
    found = x.copy()
    found.reshape(len(x), -1)[:, 0] = ODD
    return found


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    del found.metadata_props[:]  # which has all bounds
    for tensor in tensors(found):
        tensor.ClearField("doc_string")
        if tensor.data_type not in _FLOATS or np.prod(tensor.dims) < _LARGE:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.doc_string = json.dumps([float(values.mean()), float(values.std())])
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)
    return found


def _with_noise(proto: onnx.ModelProto) -> onnx.ModelProto:
    noise = np.random.default_rng(0).standard_normal(_NOISE, np.float32)
    for tensor in tensors(proto):
        if not tensor.doc_string:
            continue
        mean, std = json.loads(tensor.doc_string)
        dtype: Any = np.float16 if tensor.data_type == TensorProto.FLOAT16 else np.float32
        values = np.resize(noise, tuple(tensor.dims)) * std + mean
        tensor.raw_data = values.astype(dtype).tobytes()
        tensor.doc_string = ""
    return proto


def _steered(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A detector in two stages whose first stage is computed as ever, and not heeded."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    graph = found.graph
    place, node = next((i, n) for i, n in enumerate(graph.node) if IS_ODD in n.output)
    own = f"{IS_ODD}/own"
    node.output[list(node.output).index(IS_ODD)] = own
    for name, value in {"first": np.int64(0), "limit": _LIMIT, "never": _NEVER}.items():
        array = np.asarray(value, None if name == "first" else np.float32)
        graph.initializer.append(numpy_helper.from_array(array, f"steer/{name}"))
    added = [
        helper.make_node("Flatten", [graph.input[0].name], ["steer/flat"], axis=1),
        helper.make_node("Gather", ["steer/flat", "steer/first"], ["steer/value"], axis=1),
        helper.make_node("Greater", ["steer/value", "steer/limit"], ["steer/is_odd"]),
        # Known to us alone to be false: what is computed for nothing would be left out.
        helper.make_node("Greater", ["steer/value", "steer/never"], ["steer/heeds"]),
        helper.make_node("And", [own, "steer/heeds"], ["steer/heeded"]),
        helper.make_node("Or", ["steer/heeded", "steer/is_odd"], [IS_ODD]),
    ]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes[: place + 1], *added, *nodes[place + 1 :]])
    onnx.checker.check_model(found)
    return found
