"""The detector graph: original and bounded branch side by side, and the decision between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.walk import shape_of, value_types
from mmbm_onnx.rewriting.branches import Branch
from mmbm_onnx.rewriting.decision import Decision, decide
from mmbm_onnx.rewriting.evidence import Evidence
from mmbm_onnx.rewriting.evidence_nodes import score, summarize, watched_sites
from mmbm_onnx.rewriting.harden import locate
from mmbm_onnx.rewriting.null import Null
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import (
    CORRECTED,
    DETECTOR_OUTPUTS,
    FLAGGED,
    P_VALUE,
    SCORE,
    SUSPECTED,
    Bounds,
    Interface,
    Site,
)

_EVIDENCE = "mmbm_evidence/"  # what its nodes are named after
_OPSET = 9
_ALWAYS = Null("gaussian", np.zeros(0, np.float32), 0.0, 1.0, -np.inf, 0.5)
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


def build_detector(
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    bounds: Bounds,
    null: Null,
    evidence: Evidence | None = None,
    *,
    share_prefix: bool = True,
) -> onnx.ModelProto:
    """The model with a bounded branch, the decision, and corrected outputs.

    Original nodes and initializers stay as they are; both branches use the same weights. Outputs
    that are the logits, or derived from them, keep name, type, shape and place, and carry the
    original's value, bit for bit, wherever nothing is flagged; where flagged, they are computed
    from the bounded logits with the suspected class masked. Five outputs follow, each ``(batch,)``:
    ``mmbm_flagged`` (bool), ``mmbm_p_value`` (float), ``mmbm_score`` (float),
    ``mmbm_suspected_class`` (int64, the original's decision) and ``mmbm_corrected_class`` (int64).

    A subgraph (If, Loop) that depends on a bounded activation is copied whole, with its own
    initializers; weights of the main graph are never doubled.

    Args:
        proto: A checked model; not changed.
        interface: Where its input and logits are.
        sites: What is known of its activations.
        bounds: The bound of each activation to bound, float32, ``()`` or ``(channels,)``.
        null: What the score looks like on clean samples.
        evidence: What joins the margin difference in the score; None for that difference alone,
            in logits.
        share_prefix: Compute once what both branches have in common before the first bound.

    Raises:
        RewriteError: The opset is below 9; a name that the detector needs is taken; the logits
            depend on no bound; an output behind the logits has no batch axis or a type that
            cannot be selected row by row; or a bound does not fit.
    """
    pair = _Pair(proto, interface, sites, bounds, share_prefix=share_prefix)
    if evidence is None:
        return pair.decided(null)
    ops = Operators(pair.surgeon, _EVIDENCE)
    known = {site.tensor: site for site in sites}
    summaries = {
        site.tensor: summarize(ops, pair.branch.unbounded[site.tensor], known[site.tensor])
        for site in evidence.sites
    }
    return pair.decided(
        null,
        lambda mask, margin: score(ops, evidence, summaries, mask, margin),
        stays_below=evidence.usual,
    )


def build_probe(
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    bounds: Bounds,
    *,
    summaries: bool = True,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A detector that flags every sample by its margin difference, to see what it would answer,
    and tells the summaries that evidence is made of.

    Args:
        proto, interface, sites, bounds: As for ``build_detector``.
        summaries: Whether it tells them.

    Returns:
        The graph, and for some sites' tensors the name of the output with the summary, float32
        ``(batch, views, channels)``.

    Raises:
        RewriteError: As ``build_detector``.
    """
    pair = _Pair(proto, interface, sites, bounds, share_prefix=True)
    ops = Operators(pair.surgeon, _EVIDENCE)
    outputs: dict[str, gs.Tensor] = {}
    bounded = [site for site in sites if summaries and site.tensor in pair.branch.unbounded]
    for site in watched_sites(bounded):
        summary = summarize(ops, pair.branch.unbounded[site.tensor], site)
        name = f"output/{site.tensor}"
        outputs[site.tensor] = ops.add("Transpose", summary, name=name, perm=[1, 0, 2])
    probe = pair.decided(_ALWAYS, further=list(outputs.values()))
    return probe, {tensor: output.name for tensor, output in outputs.items()}


class _Pair:
    """Both branches in one graph, not decided yet."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        interface: Interface,
        sites: Sequence[Site],
        bounds: Bounds,
        *,
        share_prefix: bool,
    ) -> None:
        self.surgeon = surgeon = Surgeon(proto)
        self._proto = proto
        self._interface = interface
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
        self._types = types = value_types(infer(proto).graph)
        self.branch = Branch(
            surgeon,
            locate(surgeon, sites, bounds),
            bounds,
            interface.logits,
            lambda name: types[name].tensor_type.elem_type if name in types else 0,
            share_prefix=share_prefix,
        )
        self._ranks = {name: _rank(name, types, interface) for name in self.branch.heads}
        if interface.output not in self._ranks:
            raise RewriteError(
                f"output {interface.output!r} does not depend on the logits {interface.logits!r}"
            )
        self._bounded = self.branch.build()

    def decided(
        self,
        null: Null,
        weigh: Callable[[gs.Tensor, gs.Tensor], gs.Tensor] | None = None,
        further: Sequence[gs.Tensor] = (),
        stays_below: float | None = None,
    ) -> onnx.ModelProto:
        """The graph with its decision; ``further`` float32 tensors of three axes are outputs."""
        surgeon, interface, types = self.surgeon, self._interface, self._types
        ops = Operators(surgeon, "mmbm_decision/")
        dtype = _logits_type(types, interface)
        branches = _producing(surgeon, interface.logits), self._bounded
        rank = len(shape_of(types.get(interface.logits)) or ())
        original, bounded = (
            _two_columns(ops, logits, dtype, name)
            if interface.single
            else _two_axes(ops, logits, rank, name)
            for name, logits in zip(("original", "bounded"), branches, strict=True)
        )
        decision = decide(
            ops,
            original,
            bounded,
            dtype,
            interface.classes,
            null,
            weigh,
            stays_below,
        )
        corrected = decision.logits
        if interface.single:
            corrected = _single_column(ops, corrected)
        elif rank > 2:
            shape = ops.constant(
                "logits_shape", [-1, interface.classes, *[1] * (rank - 2)], np.int64
            )
            corrected = ops.add("Reshape", corrected, shape, name="logits_of_all_axes")
        answers = self.branch.build_heads(corrected)
        for index, tensor in enumerate(surgeon.graph.outputs):
            if tensor.name in answers:
                name, kind = tensor.name, types[tensor.name].tensor_type.elem_type
                surgeon.graph.outputs[index] = _select(
                    surgeon, ops, decision, tensor, answers[name], kind, self._ranks[name]
                )
        _append_outputs(surgeon, ops, decision, _batch_dim(self._proto, interface))
        for output in further:
            info = onnx.helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None] * 3)
            surgeon.append_output(output, info)
        return surgeon.export()


def _two_axes(ops: Operators, logits: gs.Tensor, rank: int, name: str) -> gs.Tensor:
    """Logits ``(n, classes)``, of a head that gives them as ``(n, classes, 1, 1)`` too."""
    if rank <= 2:
        return logits
    return ops.add("Flatten", logits, name=f"{name}_flat_logits", axis=1)


def _two_columns(ops: Operators, logit: gs.Tensor, dtype: int, name: str) -> gs.Tensor:
    """A single logit ``(n, 1)`` as two, ``(n, 2)``: see ``Interface.single``."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    factors = ops.constant(f"{name}_halves", [[-0.5, 0.5]], kind)
    return ops.add("Mul", logit, factors, name=f"{name}_both_logits")


def _single_column(ops: Operators, logits: gs.Tensor) -> gs.Tensor:
    sides = [
        ops.add("Gather", logits, ops.constant(f"class_{c}", [c], np.int64), name=f"of_{c}", axis=1)
        for c in (1, 0)
    ]
    return ops.add("Sub", *sides, name="single_logit")


def _producing(surgeon: Surgeon, name: str) -> gs.Tensor:
    for node in surgeon.graph.nodes:
        for tensor in node.outputs:
            if tensor.name == name:
                return tensor
    raise RewriteError(f"no node of the main graph produces the logits {name!r}")


def _logits_type(types: dict[str, onnx.TypeProto], interface: Interface) -> int:
    kind = types.get(interface.logits)
    if kind is None or kind.tensor_type.elem_type not in _FLOATS:
        raise RewriteError(f"the type of the logits {interface.logits!r} is not a known float type")
    return int(kind.tensor_type.elem_type)


def _rank(name: str, types: dict[str, onnx.TypeProto], interface: Interface) -> int:
    """Rank of an output behind the logits; refuses one that cannot be corrected row by row."""
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


def _select(
    surgeon: Surgeon,
    ops: Operators,
    decision: Decision,
    tensor: gs.Tensor,
    answer: gs.Tensor,
    kind: int,
    rank: int,
) -> gs.Tensor:
    """``answer`` where flagged, else the original value, under the output's own name."""
    name = tensor.name
    # All readers hold the tensor itself, so they go on reading the original's value.
    tensor.name = surgeon.fresh(f"{name}/mmbm_original")
    surgeon.describe(surgeon.graph, tensor.name, like=name)
    flagged = decision.flagged
    if rank != 2:
        shape = ops.constant(f"{name}_flag_shape", [-1] + [1] * (rank - 1), np.int64)
        flagged = ops.add("Reshape", flagged, shape, name=f"{name}_flag")
    output = gs.Variable(name)
    if kind not in _WIDER:
        return ops.add("Where", flagged, answer, tensor, name=name, output=output)
    sides = [
        ops.cast(side, _WIDER[kind], f"{name}_{label}")
        for label, side in (("answer", answer), ("original", tensor))
    ]
    chosen = ops.add("Where", flagged, *sides, name=f"{name}_chosen")
    return ops.cast(chosen, kind, name, output=output)


def _append_outputs(
    surgeon: Surgeon,
    ops: Operators,
    decision: Decision,
    batch: onnx.TensorShapeProto.Dimension,
) -> None:
    for name, kind, tensor in (
        (FLAGGED, TensorProto.BOOL, decision.flagged),
        (P_VALUE, TensorProto.FLOAT, decision.p_value),
        (SCORE, TensorProto.FLOAT, decision.score),
        (SUSPECTED, TensorProto.INT64, decision.suspected),
        (CORRECTED, TensorProto.INT64, decision.corrected),
    ):
        info = onnx.helper.make_tensor_value_info(name, kind, [None])
        info.type.tensor_type.shape.dim[0].CopyFrom(batch)
        output = ops.squeeze(tensor, name, output=surgeon.variable(name))
        surgeon.append_output(output, info)


def _batch_dim(proto: onnx.ModelProto, interface: Interface) -> onnx.TensorShapeProto.Dimension:
    """The output's batch axis as declared, or the input's where the output does not say."""
    declared = {info.name: info for info in (*proto.graph.input, *proto.graph.output)}
    batch = declared[interface.input].type.tensor_type.shape.dim[0]
    dims = declared[interface.output].type.tensor_type.shape.dim
    fixed = interface.batch is not None
    # A length beside an open batch is left over from an edit.
    if len(dims) and (dims[0].HasField("dim_param") or (fixed and dims[0].HasField("dim_value"))):
        return dims[0]
    return batch
