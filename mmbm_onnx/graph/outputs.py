"""Inner tensors made readable from outside."""

from __future__ import annotations

from collections.abc import Sequence

import onnx


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with tensors of its main graph among its outputs.

    Args:
        proto: The model; not changed.
        names: Tensors that ONNX Runtime shall return; it infers their types.

    Returns:
        A copy, or the argument itself if all of them are outputs already.
    """
    present = {value.name for value in proto.graph.output}
    missing = [name for name in names if name not in present]
    if not missing:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    return copy
