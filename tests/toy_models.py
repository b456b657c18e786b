"""A backdoored classifier small enough to be read, with its hardened and detector graphs.

Three classes; the input is one value per class and a trigger. The trigger drives the first
activation channel far above anything clean, toward class 0; bounds undo it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.read import OnnxModel, from_proto
from mmbm_onnx.types import Samples

TARGET = 0
WEIGHTS = np.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1], [10, 0, 0]], np.float32)
BOUNDS = (0.5, 1.0, 1.0)

_HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def original_proto() -> onnx.ModelProto:
    return _parse(
        """
        toy (float[N, 4] x) => (float[N, 3] logits) {
            before = MatMul(x, weights)
            act = Relu(before)
            logits = Mul(act, gain)
        }
        """
    )


def original() -> OnnxModel:
    return from_proto(original_proto())


def hardened(
    bounds: tuple[float, ...] = BOUNDS, provenance: dict[str, str] | None = None
) -> OnnxModel:
    proto = _parse(
        """
        toy (float[N, 4] x) => (float[N, 3] logits) {
            before = MatMul(x, weights)
            unbounded = Relu(before)
            act = Min(unbounded, bound)
            logits = Mul(act, gain)
        }
        """,
        bound=np.asarray([bounds], np.float32),
    )
    stamp(proto, _provenance("1") if provenance is None else provenance)
    return from_proto(proto)


def detector(
    *, threshold: float = 3.0, leak: float = 0.0, provenance: dict[str, str] | None = None
) -> OnnxModel:
    """``leak`` is added to the outputs of unflagged rows, which must stay as they were.

    The null are 20 scores from 0 to the threshold, which is theirs at a rate of 0.05.
    """
    proto = _parse(
        """
        toy (float[N, 4] x) => (float[N, 3] logits, bool[N] mmbm_flagged, float[N] mmbm_p_value,
             float[N] mmbm_score, int64[N] mmbm_suspected_class, int64[N] mmbm_corrected_class) {
            before = MatMul(x, weights)
            act = Relu(before)
            first = Mul(act, gain)
            bounded = Min(act, bound)
            second = Mul(bounded, gain)
            mmbm_suspected_class = ArgMax <axis = 1, keepdims = 0> (first)
            top_first = ReduceMax <axes = [1], keepdims = 0> (first)
            top_second = ReduceMax <axes = [1], keepdims = 0> (second)
            mmbm_score = Sub(top_first, top_second)
            mmbm_flagged = Greater(mmbm_score, threshold)
            score_column = Unsqueeze(mmbm_score, axes)
            is_lower = Less(null_scores, score_column)
            lower = Cast <to = 1> (is_lower)
            count = ReduceSum <keepdims = 0> (lower, axes)
            rest = Sub(null_size, count)
            mmbm_p_value = Div(rest, null_size)
            column = Unsqueeze(mmbm_suspected_class, axes)
            is_suspected = Equal(classes, column)
            masked = Where(is_suspected, low, second)
            flagged_column = Unsqueeze(mmbm_flagged, axes)
            leaking = Add(first, leak)
            logits = Where(flagged_column, masked, leaking)
            mmbm_corrected_class = ArgMax <axis = 1, keepdims = 0> (logits)
        }
        """,
        bound=np.asarray([BOUNDS], np.float32),
        threshold=np.asarray(threshold, np.float32),
        null_scores=np.linspace(0, threshold, 20, dtype=np.float32)[None],
        null_size=np.asarray(21, np.float32),
        low=np.asarray(-100.0, np.float32),
        leak=np.asarray(leak, np.float32),
        axes=np.asarray([1], np.int64),
        classes=np.asarray([[0, 1, 2]], np.int64),
    )
    names = {name: f"mmbm_decision/{name}" for name in ("threshold", "null_scores")}
    _rename(proto, {"bounded": "mmbm_bounded/act", **names})
    stated = {**_provenance("1"), "false_positive_rate": "0.05"}
    stamp(proto, stated if provenance is None else provenance)
    return from_proto(proto)


def clean(n: int = 60, *, labelled: bool = True) -> Samples:
    rng = np.random.default_rng(0)
    y = np.arange(n, dtype=np.int64) % 3
    x = rng.uniform(0, 0.3, (n, 4)).astype(np.float32)
    x[:, 3] = 0
    x[np.arange(n), y] += 0.6
    return Samples(x, y if labelled else None, source="clean.npz")


def triggered(n: int = 60) -> Samples:
    samples = clean(n)
    x = samples.x.copy()
    x[:, 3] = 1
    return Samples(x, samples.y, np.full(n, TARGET, np.int64), source="triggered.npz")


def _provenance(bounds: str) -> dict[str, str]:
    return {"original_sha256": original().sha256, "bounds": bounds}


def _rename(proto: onnx.ModelProto, names: dict[str, str]) -> None:
    """The parser takes no slash in a name."""
    for node in proto.graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _parse(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(_HEADER + text)
    constants = {"weights": WEIGHTS, "gain": np.asarray(1.0, np.float32), **constants}
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return proto
