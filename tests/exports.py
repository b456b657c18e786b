"""Networks exported by torch."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import Tensor, nn


def exported(module: nn.Module, x: Tensor, opset: int | None) -> onnx.ModelProto:
    """By the default exporter (opset None) or the TorchScript one, with a dynamic batch axis and
    ``x`` as the input's name."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset is None:
            batch = torch.export.Dim("batch", min=1, max=64)
            program = torch.onnx.export(
                module, (x,), dynamic_shapes=({0: batch},), input_names=["x"], verbose=False
            )
            assert program is not None
            return program.model_proto
        torch.onnx.export(
            module,
            (x,),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
    return onnx.load_from_string(buffer.getvalue())
