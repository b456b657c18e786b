"""What a detector's graph has besides its branches: logits in one form, outputs that are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.walk import shape_of
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import (
    CORRECTED,
    DETECTOR_OUTPUTS,
    FLAGGED,
    P_VALUE,
    SCORE,
    SUSPECTED,
    Interface,
)

_OPSET = 9
_FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16)
# ONNX Runtime has no Where for these on the CPU; the wider type holds each exactly.
_WIDER: dict[int, int] = {
    TensorProto.BOOL: TensorProto.INT32,
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.BFLOAT16: TensorProto.FLOAT,
}
_SELECTABLE = {
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.UINT32,
    TensorProto.INT64,
    TensorProto.STRING,
    *_WIDER,
}


def opened(proto: onnx.ModelProto) -> Surgeon:
    """A model that a detector is to be made of.

    Raises:
        RewriteError: Its opset is below 9, or a name that the detector needs is taken.
    """
    surgeon = Surgeon(proto)
    if surgeon.opset < _OPSET:
        raise RewriteError(
            f"a detector needs opset {_OPSET} or later, the model has {surgeon.opset}; use "
            "--no-detector, or convert the model with onnx.version_converter"
        )
    taken = sorted(set(DETECTOR_OUTPUTS) & surgeon.names())
    if taken:
        raise RewriteError(
            f"the model has a tensor named {taken[0]!r} already; rename it, or start from the "
            "original if this is a detector"
        )
    return surgeon


class Logits:
    """Logits as a model has them, and as ``(n, classes)``.

    Args:
        types: Type of each tensor.
        interface: Where they are.

    Attributes:
        dtype: ONNX element type.

    Raises:
        RewriteError: Their type is not a known float type.
    """

    def __init__(self, types: Mapping[str, onnx.TypeProto], interface: Interface) -> None:
        kind = types.get(interface.logits)
        if kind is None or kind.tensor_type.elem_type not in _FLOATS:
            raise RewriteError(
                f"the type of the logits {interface.logits!r} is not a known float type"
            )
        self.dtype = int(kind.tensor_type.elem_type)
        self._rank = len(shape_of(kind) or ())
        self._interface = interface

    def columns(self, ops: Operators, logits: gs.Tensor, name: str) -> gs.Tensor:
        """Logits ``(n, classes)``, of a head that gives them as ``(n, classes, 1, 1)`` too, and two
        of a single one: see ``Interface.single``."""
        if self._interface.single:
            kind = onnx.helper.tensor_dtype_to_np_dtype(self.dtype)
            factors = ops.constant(f"{name}_halves", [[-0.5, 0.5]], kind)
            return ops.add("Mul", logits, factors, name=f"{name}_both_logits")
        if self._rank <= 2:
            return logits
        return ops.add("Flatten", logits, name=f"{name}_flat_logits", axis=1)

    def restored(self, ops: Operators, columns: gs.Tensor) -> gs.Tensor:
        """Logits ``(n, classes)`` in the form that the model has them in."""
        if self._interface.single:
            sides = [
                ops.add(
                    "Gather",
                    columns,
                    ops.constant(f"class_{c}", [c], np.int64),
                    name=f"of_{c}",
                    axis=1,
                )
                for c in (1, 0)
            ]
            return ops.add("Sub", *sides, name="single_logit")
        if self._rank <= 2:
            return columns
        shape = ops.constant(
            "logits_shape", [-1, self._interface.classes, *[1] * (self._rank - 2)], np.int64
        )
        return ops.add("Reshape", columns, shape, name="logits_of_all_axes")


def producing(surgeon: Surgeon, name: str) -> gs.Tensor:
    """The tensor of that name, the logits for one, that a node of the main graph produces.

    Raises:
        RewriteError: None does.
    """
    for node in surgeon.graph.nodes:
        for tensor in node.outputs:
            if tensor.name == name:
                return tensor
    raise RewriteError(f"no node of the main graph produces {name!r}")


def ranks(
    heads: Sequence[str], types: Mapping[str, onnx.TypeProto], interface: Interface
) -> dict[str, int]:
    """Ranks of the outputs behind the logits.

    Args:
        heads: Their names.
        types: Type of each tensor.
        interface: Which of them carries the classification.

    Raises:
        RewriteError: One cannot be corrected row by row, or that one is not among them.
    """
    found = {name: _rank(name, types, interface) for name in heads}
    if interface.output not in found:
        raise RewriteError(
            f"output {interface.output!r} does not depend on the logits {interface.logits!r}"
        )
    return found


def _rank(name: str, types: Mapping[str, onnx.TypeProto], interface: Interface) -> int:
    kind = types[name].tensor_type
    if not types[name].HasField("tensor_type") or kind.elem_type not in _SELECTABLE:
        what = TensorProto.DataType.Name(kind.elem_type).lower() if kind.elem_type else "no tensor"
        raise RewriteError(
            f"output {name!r} depends on the logits and is {what}, which cannot be corrected; "
            "remove it or use --no-detector"
        )
    shape = shape_of(types[name])
    if not shape or shape[0] not in (None, interface.batch):
        raise RewriteError(
            f"output {name!r} depends on the logits but has no batch axis to correct it by; "
            "remove it or use --no-detector"
        )
    return len(shape)


def hide(surgeon: Surgeon, tensor: gs.Tensor) -> str:
    """Take an output's name from the original's tensor, for one that has corrected values; all
    readers hold the tensor itself, so they go on reading the original's. Returns the name."""
    name = str(tensor.name)
    tensor.name = surgeon.fresh(f"{name}/mmbm_original")
    surgeon.describe(surgeon.graph, tensor.name, like=name)
    return name


def choose(
    ops: Operators,
    flagged: gs.Tensor,
    answer: gs.Tensor,
    original: gs.Tensor,
    kind: int,
    rank: int,
    name: str,
    output: gs.Tensor = None,
) -> gs.Tensor:
    """``answer`` in the rows that are flagged, else the original value, bit for bit.

    Args:
        ops: Where nodes go.
        flagged: bool ``(n, 1)``.
        answer, original: ``(n, ...)``, of ONNX element type ``kind`` and with ``rank`` axes.
        name: What nodes are named after.
        output: The tensor to compute, or None for a new one.
    """
    if rank != 2:
        shape = ops.constant(f"{name}_flag_shape", [-1] + [1] * (rank - 1), np.int64)
        flagged = ops.add("Reshape", flagged, shape, name=f"{name}_flag")
    if kind not in _WIDER:
        return ops.add("Where", flagged, answer, original, name=name, output=output)
    sides = [
        ops.cast(side, _WIDER[kind], f"{name}_{label}")
        for label, side in (("answer", answer), ("original", original))
    ]
    chosen = ops.add("Where", flagged, *sides, name=f"{name}_chosen")
    return ops.cast(chosen, kind, name, output=output)


def append_outputs(
    surgeon: Surgeon,
    batch: onnx.TensorShapeProto.Dimension,
    *,
    flagged: gs.Tensor,
    p_value: gs.Tensor,
    score: gs.Tensor,
    suspected: gs.Tensor,
    corrected: gs.Tensor,
) -> None:
    """Add what a detector tells to the outputs.

    Args:
        surgeon: The model being changed.
        batch: The axis as outputs declare it.
        flagged, p_value, score, suspected, corrected: Of ``DETECTOR_OUTPUTS``, each ``(n,)``; they
            are renamed.
    """
    for name, kind, tensor in (
        (FLAGGED, TensorProto.BOOL, flagged),
        (P_VALUE, TensorProto.FLOAT, p_value),
        (SCORE, TensorProto.FLOAT, score),
        (SUSPECTED, TensorProto.INT64, suspected),
        (CORRECTED, TensorProto.INT64, corrected),
    ):
        info = onnx.helper.make_tensor_value_info(name, kind, [None])
        info.type.tensor_type.shape.dim[0].CopyFrom(batch)
        tensor.name = surgeon.fresh(name)
        surgeon.append_output(tensor, info)


def batch_dim(proto: onnx.ModelProto, interface: Interface) -> onnx.TensorShapeProto.Dimension:
    """The output's batch axis as declared, or the input's where the output does not say."""
    declared = {info.name: info for info in (*proto.graph.input, *proto.graph.output)}
    batch = declared[interface.input].type.tensor_type.shape.dim[0]
    dims = declared[interface.output].type.tensor_type.shape.dim
    fixed = interface.batch is not None
    # A length beside an open batch is left over from an edit.
    if len(dims) and (dims[0].HasField("dim_param") or (fixed and dims[0].HasField("dim_value"))):
        return dims[0]
    return batch
