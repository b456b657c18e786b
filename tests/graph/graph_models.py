"""Small models for the tests of the graph room."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

CLASSIFIER = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] x) => (float[N,5] y)
<float[4,3,3,3] w, float[5,4] v> {
    c = Conv (x, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, v)
}
"""


def parse(text: str, *, seed: int = 0) -> onnx.ModelProto:
    """A model in ONNX text syntax; inner tensors declared with a full shape and produced by no
    node become random weights."""
    proto = parser.parse_model(text)
    made = {name for node in proto.graph.node for name in node.output}
    made |= {tensor.name for tensor in proto.graph.initializer}
    rng = np.random.default_rng(seed)
    kept = []
    for info in proto.graph.value_info:
        if info.name in made:
            kept.append(info)
            continue
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        array = rng.normal(size=shape).astype(dtype)
        proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto


def classifier() -> onnx.ModelProto:
    """Conv, Relu, pooling and a linear layer: five classes."""
    return parse(CLASSIFIER)


def edit_external(path: Path, **entries: str | None) -> None:
    """Change what the first external tensor of a saved model says about its data."""
    proto = onnx.ModelProto()
    proto.ParseFromString(path.read_bytes())
    tensor = proto.graph.initializer[0]
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def export(
    module: object,
    x: object,
    *,
    dynamo: bool = True,
    opset: int | None = None,
    dynamic: bool = True,
) -> onnx.ModelProto:
    """What torch writes for a module, by its default exporter or the older one."""
    import torch

    module.eval()  # type: ignore[attr-defined]
    with _quiet():
        if dynamo:
            shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
            program = torch.onnx.export(
                module, (x,), dynamo=True, verbose=False, opset_version=opset, dynamic_shapes=shapes
            )
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(
            module,
            (x,),
            buffer,
            dynamo=False,
            opset_version=opset or 13,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}} if dynamic else None,
        )
        return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as sink,  # noqa: PTH123
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def listing(directory: Path) -> dict[str, bytes | str]:
    """Everything in a directory: contents of files, targets of links."""
    return {
        entry.name: str(entry.readlink()) if entry.is_symlink() else entry.read_bytes()
        for entry in directory.iterdir()
    }


def tensor_names(items: Sequence[object]) -> list[str]:
    """The ``tensor`` of each site or uncovered activation."""
    return [item.tensor for item in items]  # type: ignore[attr-defined]
