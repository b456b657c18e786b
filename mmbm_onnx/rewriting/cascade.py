"""The detector graph in two stages: the bounded branch runs for the samples that look odd.

The first stage is evidence that is read where the original runs, and the original's margin: only
what is there can be taken from it. Most samples look so much like the clean ones of their class
that hardly any margin difference would make them improbable enough to be flagged; they are done.
The others are gathered, go through the bounded branch, which gives their margin difference, their
score and their answer, and are scattered back. Where there are none, an If runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.walk import value_types
from mmbm_onnx.rewriting.branches import Branch
from mmbm_onnx.rewriting.decision import as_float32, decide, flag, p_value, suspect
from mmbm_onnx.rewriting.evidence import Evidence
from mmbm_onnx.rewriting.evidence_nodes import (
    first_score,
    score,
    unusual,
)
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
from mmbm_onnx.types import Bounds, Interface, Site

OPSET = 11
_EVIDENCE, _DECISION, _ODD = "mmbm_evidence/", "mmbm_decision/", "mmbm_odd/"


def build_cascade(
    proto: onnx.ModelProto,
    interface: Interface,
    sites: Sequence[Site],
    bounds: Bounds,
    null: Null,
    evidence: Evidence,
    gate: float,
    shadow: Shadow | None = None,
) -> onnx.ModelProto:
    """The model with evidence, and a bounded branch for the samples whose first score is not below
    the gate. Outputs as those of ``build_detector``; the score of the other samples is their first
    one.

    Args:
        proto, interface, sites, bounds: As for ``build_detector``.
        null: What the score looks like on clean samples; its threshold is not below the gate.
        evidence: Fitted to summaries of the original branch.
        gate: First score from which samples go on.
        shadow: The bounded branch; None for a copy of the original's nodes.

    Raises:
        RewriteError: As ``build_detector``; or the opset is below 11, the batch is fixed, or the
            threshold is below the gate.
    """
    if interface.batch is not None:
        raise RewriteError("samples of a fixed batch cannot be taken out of it")
    if not gate <= null.threshold:
        raise RewriteError(f"the threshold {null.threshold:g} is below the gate {gate:g}")
    surgeon = opened(proto)
    if surgeon.opset < OPSET:
        raise RewriteError(f"two stages need opset {OPSET}, the model has {surgeon.opset}")
    types = value_types(infer(proto).graph)
    logits = Logits(types, interface)
    raw = producing(surgeon, interface.logits)
    watched = {site.tensor: site for site in sites}
    values = {site.tensor: producing(surgeon, site.tensor) for site in evidence.sites}

    then = surgeon.new_graph("odd")
    inside = Operators(surgeon, _ODD, then)
    x = next(t for t in surgeon.graph.inputs if t.name == interface.input)
    chosen, fed = (surgeon.variable(f"{_ODD}{name}") for name in ("rows", "input"))
    branch = Branch(
        surgeon,
        locate(surgeon, sites, bounds),
        bounds,
        interface.logits,
        types,
        share_prefix=False,
        graph=then,
        feeds={interface.input: fed},
        shadow=shadow,
    )
    rank_of = ranks(branch.heads, types, interface)

    # The first stage.
    ops = Operators(surgeon, _EVIDENCE)
    outer = Operators(surgeon, _DECISION)
    columns = logits.columns(outer, raw, "original")
    suspected = suspect(outer, columns, logits.dtype)
    wide = as_float32(outer, columns, logits.dtype, "logits_of_all")
    by_activations = unusual(ops, evidence, values, watched, suspected, interface.classes)
    first = first_score(outer, evidence, by_activations, wide, interface.classes)
    # One that is no number is not below the gate.
    below = outer.add("Less", first, outer.constant("gate", gate, np.float32), name="is_usual")
    odd = outer.add("Not", below, name="is_odd")
    ones = outer.cast(odd, TensorProto.FLOAT, "odd_ones")
    count = outer.over("ReduceSum", ones, [0], "odd_count", keepdims=0)
    any_odd = outer.add("Greater", count, outer.constant("none", 0.5, np.float32), name="any_odd")

    # The second one.
    places = inside.add("NonZero", odd, name="places")
    inside.add(
        "Reshape", places, inside.constant("flat", [-1], np.int64), name="rows", output=chosen
    )
    target = inside.unsqueeze(chosen, 1, "row_indices")

    def taken(tensor: gs.Tensor, name: str, output: gs.Tensor = None) -> gs.Tensor:
        return inside.add("Gather", tensor, chosen, name=name, output=output, axis=0)

    def put_back(whole: gs.Tensor, part: gs.Tensor, name: str) -> gs.Tensor:
        return inside.add("ScatterND", whole, target, part, name=name)

    taken(x, "input", fed)
    bounded = logits.columns(inside, branch.build(), "bounded")
    original = logits.columns(inside, taken(raw, "odd_logits"), "original")
    own = taken(by_activations, "unusual")
    decision = decide(
        inside,
        original,
        bounded,
        logits.dtype,
        interface.classes,
        null,
        lambda _, difference: score(inside, evidence, own, difference),
        evidence.usual,
    )
    answers = branch.build_heads(logits.restored(inside, decision.logits))

    odd_results, usual_results, results = [], [], []
    otherwise = surgeon.new_graph("usual")
    aside = Operators(surgeon, "mmbm_usual/", otherwise)

    def either(if_odd: gs.Tensor, if_usual: gs.Tensor, name: str, output: gs.Tensor) -> gs.Tensor:
        odd_results.append(if_odd)
        usual_results.append(aside.add("Identity", if_usual, name=name))
        results.append(output)
        return output

    for index, tensor in enumerate(surgeon.graph.outputs):
        if tensor.name not in answers:
            continue
        name = hide(surgeon, tensor)
        best = choose(
            inside,
            decision.flagged,
            answers[name],
            taken(tensor, f"{name}/original"),
            types[name].tensor_type.elem_type,
            rank_of[name],
            name,
        )
        surgeon.graph.outputs[index] = either(
            put_back(tensor, best, f"{name}/all"), tensor, name, gs.Variable(name)
        )
    scores = either(
        put_back(first, inside.squeeze(decision.score, "odd_scores"), "all_scores"),
        first,
        "scores",
        surgeon.variable(f"{_DECISION}score"),
    )
    corrected = either(
        put_back(suspected, inside.squeeze(decision.corrected, "odd_corrected"), "all_corrected"),
        suspected,
        "corrected",
        surgeon.variable(f"{_DECISION}corrected"),
    )
    then.outputs, otherwise.outputs = odd_results, usual_results
    surgeon.graph.nodes.append(
        gs.Node(
            "If",
            name=surgeon.fresh_node("mmbm_cascade"),
            attrs={"then_branch": then, "else_branch": otherwise},
            inputs=[any_odd],
            outputs=results,
        )
    )
    append_outputs(
        surgeon,
        batch_dim(proto, interface),
        flagged=flag(outer, null, scores),
        p_value=p_value(outer, null, scores),
        score=scores,
        suspected=suspected,
        corrected=corrected,
    )
    return surgeon.export()
