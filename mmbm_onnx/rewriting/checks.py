"""What must hold of every graph before it is written."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.validity import objection

_PROTOBUF_LIMIT = 2**31


def check_written(proto: onnx.ModelProto) -> None:
    """Run ONNX's full check, strict shape inference included, on a rewritten model.

    Raises:
        RewriteError: The checker objects (its first line is given), or the model is too large
            for a single protobuf message.
    """
    if proto.ByteSize() >= _PROTOBUF_LIMIT:
        raise RewriteError("the rewritten graph exceeds 2 GB, which one ONNX message cannot hold")
    if text := objection(proto):
        raise RewriteError(f"the rewritten graph is not valid ONNX: {text}")


def check_signature(
    original: onnx.ModelProto,
    rewritten: onnx.ModelProto,
    extra_outputs: Sequence[str] = (),
    *,
    folded: bool = False,
) -> None:
    """Make sure a rewritten model can take the original's place.

    Inputs and outputs keep names, types, shapes and order; outputs in ``extra_outputs`` follow
    after them; opset imports and IR version stay; every initializer is there, byte-identical,
    unless bounds were ``folded`` into them.

    Raises:
        RewriteError: Naming the first thing that differs.
    """
    if original.ir_version != rewritten.ir_version:
        raise RewriteError(f"the IR version became {rewritten.ir_version}")
    if list(original.opset_import) != list(rewritten.opset_import):
        raise RewriteError("the opset imports were changed")
    if list(original.graph.input) != list(rewritten.graph.input):
        raise RewriteError("the graph's inputs were changed")
    outputs = list(rewritten.graph.output)
    count = len(original.graph.output)
    if list(original.graph.output) != outputs[:count]:
        raise RewriteError("the graph's outputs were changed")
    extra = [info.name for info in outputs[count:]]
    if extra != list(extra_outputs):
        raise RewriteError(f"the graph has extra outputs {extra}, expected {list(extra_outputs)}")
    if folded:
        return
    now = {tensor.name: tensor for tensor in rewritten.graph.initializer}
    for tensor in original.graph.initializer:
        if tensor.name not in now:
            raise RewriteError(f"initializer {tensor.name!r} is gone")
        if _bytes(now[tensor.name]) != _bytes(tensor):
            raise RewriteError(f"initializer {tensor.name!r} was changed")
    sparse = list(original.graph.sparse_initializer)
    if list(rewritten.graph.sparse_initializer)[: len(sparse)] != sparse:
        raise RewriteError("a sparse initializer was changed")


def _bytes(tensor: onnx.TensorProto) -> bytes:
    return tensor.SerializeToString(deterministic=True)
