"""The detector graph: original and bounded branch side by side, and the decision between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.walk import ancestors, value_types
from mmbm_onnx.rewriting.branches import Branch
from mmbm_onnx.rewriting.decision import decide, p_value
from mmbm_onnx.rewriting.evidence import Evidence
from mmbm_onnx.rewriting.evidence_nodes import score, summarize, unusual, watched_sites
from mmbm_onnx.rewriting.harden import locate
from mmbm_onnx.rewriting.heads import (
    Logits,
    append_outputs,
    batch_dim,
    choose,
    hide,
    opened,
    producing,
    ranks,
)
from mmbm_onnx.rewriting.null import Null
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.types import Bounds, Interface, Site, Source

_EVIDENCE = "mmbm_evidence/"  # what its nodes are named after
_NOT_IN_SHADOW = "evidence cannot be read in a shadow branch"
_ALWAYS = Null("gaussian", np.zeros(0, np.float32), 0.0, 1.0, -np.inf, 0.5)


def build_detector(
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    bounds: Bounds,
    null: Null,
    evidence: Evidence | None = None,
    *,
    read: Source = "bounded",
    share_prefix: bool = True,
    shadow: Shadow | None = None,
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
        read: Branch whose activations evidence is of.
        share_prefix: Compute once what both branches have in common before the first bound.
        shadow: The bounded branch; None for a copy of the original's nodes. Evidence is then read
            in the original.

    Raises:
        RewriteError: The opset is below 9; a name that the detector needs is taken; the logits
            depend on no bound; an output behind the logits has no batch axis or a type that
            cannot be selected row by row; or a bound does not fit. Or there is a shadow, and
            evidence is to be read in it, or an output behind the logits depends on more than these.
    """
    if shadow is not None and evidence is not None and read == "bounded":
        raise RewriteError(_NOT_IN_SHADOW)
    pair = _Pair(proto, interface, sites, bounds, share_prefix=share_prefix, shadow=shadow)
    if evidence is None:
        return pair.decided(null)
    ops = Operators(pair.surgeon, _EVIDENCE)
    known = {site.tensor: site for site in sites}
    values: Mapping[str, gs.Tensor] = pair.branch.unbounded
    if read == "original":
        values = {site.tensor: producing(pair.surgeon, site.tensor) for site in evidence.sites}
    return pair.decided(
        null,
        lambda suspected, margin: score(
            ops,
            evidence,
            unusual(
                ops,
                evidence,
                values,
                known,
                ops.squeeze(suspected, "suspected"),
                interface.classes,
            ),
            margin,
        ),
        stays_below=evidence.usual,
    )


def build_probe(
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    bounds: Bounds,
    *,
    summaries: Source | None = "bounded",
    shadow: Shadow | None = None,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A detector that flags every sample by its margin difference, to see what it would answer,
    and tells the summaries that evidence is made of.

    Args:
        proto, interface, sites, bounds: As for ``build_detector``.
        summaries: Which branch they are of; None for none.
        shadow: As for ``build_detector``.

    Returns:
        The graph, and for some sites' tensors the name of the output with the summary, float32
        ``(batch, views, channels)``.

    Raises:
        RewriteError: As ``build_detector``.
    """
    if shadow is not None and summaries == "bounded":
        raise RewriteError(_NOT_IN_SHADOW)
    pair = _Pair(proto, interface, sites, bounds, share_prefix=True, shadow=shadow)
    ops = Operators(pair.surgeon, _EVIDENCE)
    outputs: dict[str, gs.Tensor] = {}
    values = pair.branch.unbounded
    seen = set(values)
    if summaries == "original":
        seen = ancestors(proto.graph, [interface.logits])
    reached = [site for site in sites if summaries and site.tensor in seen]
    watched = watched_sites(reached, pair.types)
    if summaries == "original":
        values = {site.tensor: producing(pair.surgeon, site.tensor) for site in watched}
    for site in watched:
        summary = summarize(ops, values[site.tensor], site)
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
        shadow: Shadow | None,
    ) -> None:
        self.surgeon = surgeon = opened(proto)
        self._proto = proto
        self._interface = interface
        self.types = types = value_types(infer(proto).graph)
        self.branch = Branch(
            surgeon,
            locate(surgeon, sites, bounds),
            bounds,
            interface.logits,
            types,
            share_prefix=share_prefix,
            shadow=shadow,
        )
        self._ranks = ranks(self.branch.heads, types, interface)
        self._bounded = self.branch.build()

    def decided(
        self,
        null: Null,
        weigh: Callable[[gs.Tensor, gs.Tensor], gs.Tensor] | None = None,
        further: Sequence[gs.Tensor] = (),
        stays_below: float | None = None,
    ) -> onnx.ModelProto:
        """The graph with its decision; ``further`` float32 tensors of three axes are outputs."""
        surgeon, interface, types = self.surgeon, self._interface, self.types
        ops = Operators(surgeon, "mmbm_decision/")
        logits = Logits(types, interface)
        branches = producing(surgeon, interface.logits), self._bounded
        original, bounded = (
            logits.columns(ops, tensor, name)
            for name, tensor in zip(("original", "bounded"), branches, strict=True)
        )
        decision = decide(
            ops,
            original,
            bounded,
            logits.dtype,
            interface.classes,
            null,
            weigh,
            stays_below,
        )
        answers = self.branch.build_heads(logits.restored(ops, decision.logits))
        for index, tensor in enumerate(surgeon.graph.outputs):
            if tensor.name in answers:
                name = hide(surgeon, tensor)
                surgeon.graph.outputs[index] = choose(
                    ops,
                    decision.flagged,
                    answers[name],
                    tensor,
                    types[name].tensor_type.elem_type,
                    self._ranks[name],
                    name,
                    gs.Variable(name),
                )
        score = ops.squeeze(decision.score, "scores")
        append_outputs(
            surgeon,
            batch_dim(self._proto, interface),
            flagged=ops.squeeze(decision.flagged, "flags"),
            p_value=p_value(ops, null, score),
            score=score,
            suspected=ops.squeeze(decision.suspected, "suspected_classes"),
            corrected=ops.squeeze(decision.corrected, "corrected_classes"),
        )
        for output in further:
            info = onnx.helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None] * 3)
            surgeon.append_output(output, info)
        return surgeon.export()
