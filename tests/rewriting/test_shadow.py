"""Detectors whose bounded branch is a shadow, in one stage and two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from rewriting_helpers import run_named, serialized
from shadow_models import CLASSES, network, samples, shadowed, sites_and_bounds

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.rewriting.cascade import build_cascade
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector, build_probe
from mmbm_onnx.rewriting.evidence import Evidence, fit_evidence
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.rewriting.shadow.cut import bare_logits
from mmbm_onnx.runtime.converting import to_int8
from mmbm_onnx.types import DETECTOR_OUTPUTS

ALL = fit_null(np.full(9, -1e6, np.float32), 0.5)
NONE = fit_null(np.full(9, 1e6, np.float32), 0.5)


def parts(head: str = "logits") -> tuple:
    proto = network(head)
    sites, bounds = sites_and_bounds(proto)
    return proto, find_interface(proto), sites, bounds


def shadow(kind: str, head: str = "logits") -> Shadow:
    found = shadowed(network(head), kind).shadow
    assert found is not None
    return found


def evidence(kind: str, head: str) -> Evidence:
    x = samples(90, 5)
    probe, outputs = build_probe(*parts(head), summaries="original", shadow=shadow(kind, head))
    answers = run_named(probe, x=x.x)
    found = fit_evidence(
        {tensor: answers[name].transpose(1, 0, 2) for tensor, name in outputs.items()},
        answers["mmbm_suspected_class"],
        answers["mmbm_score"],
        np.ones(len(x), np.float32),
        right=np.ones(len(x), bool),
        learned_on=np.zeros(len(x), bool),
        classes=CLASSES,
        seed=0,
    )
    assert found is not None
    return found.evidence


def built(kind: str, head: str, stages: int, null=ALL, gate: float = -1e6) -> onnx.ModelProto:
    before = parts(head)
    kept = serialized(before[0])
    weighed = evidence(kind, head)
    if stages == 2:
        proto = build_cascade(*before, null, weighed, gate, shadow(kind, head))
    else:
        proto = build_detector(*before, null, weighed, read="original", shadow=shadow(kind, head))
    assert serialized(before[0]) == kept
    check_written(proto)
    check_signature(before[0], proto, DETECTOR_OUTPUTS)
    return proto


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("head", ["logits", "softmax"])
@pytest.mark.parametrize("kind", ["int8", "half"])
def test_flagged_answers_are_the_shadows_and_others_the_originals_bit_for_bit(
    kind: str, head: str, stages: int
) -> None:
    x = samples(40, 6).x
    plain = run_named(network(head), x=x)
    quiet = run_named(built(kind, head, stages, NONE), x=x)
    assert not quiet["mmbm_flagged"].any()
    for name, values in plain.items():
        assert np.array_equal(quiet[name], values)
    loud = run_named(built(kind, head, stages), x=x)
    assert loud["mmbm_flagged"].all()
    session = ort.InferenceSession(
        shadow(kind, head).proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (bounded,) = session.run(None, {"x": x})
    suspected = plain[next(iter(plain))].argmax(1)
    own = np.arange(CLASSES) == suspected[:, None]
    # Evidence says when a suspected class stays; elsewhere it is masked.
    masked = loud["mmbm_corrected_class"] == np.where(own, -np.inf, bounded).argmax(1)
    assert masked.mean() > 0.95
    assert np.array_equal(loud["mmbm_suspected_class"], suspected)


@pytest.mark.parametrize("kind", ["int8", "half"])
def test_two_stages_score_what_one_stage_scores(kind: str) -> None:
    x = samples(60, 6).x
    one, two = (run_named(built(kind, "logits", stages), x=x) for stages in (1, 2))
    assert np.allclose(one["mmbm_score"], two["mmbm_score"], rtol=1e-3, atol=1e-3)
    assert np.array_equal(one["mmbm_corrected_class"], two["mmbm_corrected_class"])


def fused(proto: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Operators that ran in ONNX Runtime, subgraphs included."""
    import json

    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"x": samples(4, 6).x})
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(e["args"]["op_name"] for e in events if "op_name" in e.get("args", {}))


@pytest.mark.parametrize("stages", [1, 2])
def test_int8_runs_in_integers(stages: int, tmp_path: Path) -> None:
    count = fused(built("int8", "logits", stages), tmp_path)
    assert count["QLinearConv"] == 3  # two, and the depthwise one of the sum's scale
    assert count["QGemm"] == 2
    assert count["Min"] == 0


@pytest.mark.parametrize("stages", [1, 2])
def test_a_shadow_brings_its_own_weights_and_no_copy_of_the_originals(stages: int) -> None:
    proto = built("int8", "logits", stages)
    nodes = {1: proto.graph.node}.get(stages) or next(
        a.g.node for n in proto.graph.node if n.op_type == "If" for a in n.attribute
        if a.name == "then_branch"
    )  # fmt: skip
    ours = [node for node in nodes if node.output[0].startswith("mmbm_shadow/")]
    weights = {tensor.name for tensor in network().graph.initializer}
    assert len(ours) > 20
    assert not weights & {name for node in ours for name in node.input}
    assert not any(name.startswith("mmbm_bounded/") for n in nodes for name in n.output)


def test_limits_that_the_quantizer_makes_ranges_of_leave_no_constants() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> {
            low = Constant <value_float = 0.0> ()
            high = Constant <value_float = 1.0> ()
            a = MatMul(x, w)
            b = Clip(a, low, high)
            y = MatMul(b, w)
        }
        """
    )
    del proto.graph.input[1:]
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    x = np.random.default_rng(0).uniform(-1, 3, (20, 4)).astype(np.float32)
    found = bare_logits(to_int8(proto, [x], {"b": 1.0})).graph
    kinds = Counter(node.op_type for node in found.node)
    assert kinds["Clip"] == kinds["Constant"] == 0
    read = {name for node in found.node for name in node.input}
    assert {tensor.name for tensor in found.initializer} <= read


def test_evidence_is_not_read_in_a_shadow() -> None:
    found = evidence("int8", "logits")
    with pytest.raises(RewriteError, match="evidence cannot be read in a shadow"):
        build_detector(*parts(), ALL, found, shadow=shadow("int8"))
    with pytest.raises(RewriteError, match="evidence cannot be read in a shadow"):
        build_probe(*parts(), shadow=shadow("int8"))


def test_outputs_behind_the_logits_must_read_nothing_else() -> None:
    proto, face, sites, bounds = parts()
    proto.graph.node.append(helper.make_node("ReduceSum", ["third"], ["sum_of_third"]))
    proto.graph.node.append(helper.make_node("Add", ["logits", "sum_of_third"], ["mixed"]))
    proto.graph.output.append(
        helper.make_tensor_value_info("mixed", onnx.TensorProto.FLOAT, ["N", CLASSES])
    )
    with pytest.raises(RewriteError, match="behind the logits 'logits' reads 'sum_of_third', too"):
        build_detector(proto, face, sites, bounds, ALL, shadow=shadow("int8"))
