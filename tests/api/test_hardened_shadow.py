"""``harden`` with a shadow branch: files that ``verify`` believes, and does not once changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from defended import assert_defended
from onnx import numpy_helper
from quadrants import Case
from shadow_models import network, samples

from mmbm_onnx import HardenResult, Samples, harden, inspect, verify
from mmbm_onnx.errors import OptionError, RewriteError
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.walk import graphs
from mmbm_onnx.pipeline import bounding, pairing, shadowing

QUICK = {"epochs": 25, "batch_size": 60, "threads": 1}


@pytest.fixture(scope="module")
def int8(case: Case) -> HardenResult:
    return harden(case.model, case.folder, shadow="int8", **QUICK)


def failing(checked) -> dict[str, Gate]:
    return {gate.name: gate for gate in checked.gates if not gate.passed}


def answers(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {session.get_inputs()[0].name: x})
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"shadow": "int8"},
        {"shadow": "half"},
        {"shadow": "auto"},
        {"shadow": "folded"},
        {"shadow": "folded", "cascade": "never"},
        {"shadow": "folded", "granularity": "tensor"},
        {"shadow": "folded", "fold": "never"},
        {"shadow": "int8", "cascade": "never"},
        {"shadow": "half", "cascade": "never"},
        {"shadow": "int8", "granularity": "tensor"},
        {"shadow": "int8", "fold": "never"},
        {"shadow": "int8", "method": "mmbm"},
    ],
)
def test_a_detector_with_a_shadow_defends_and_is_verified(case: Case, options) -> None:
    made = harden(case.model, case.folder, **QUICK, **options)
    kind = "folded" if options["shadow"] == "auto" else options["shadow"]
    told = made.report["detector"]
    assert (told["shadow"], told["shadow_reason"]) == (kind, None)
    assert read_provenance(made.detector)["shadow"] == kind
    assert "shadow" not in read_provenance(made.hardened)
    checked = verify(case.model, made.hardened, case.npz, detector=made.detector,
                     triggered=case.triggered)  # fmt: skip
    if options.get("method") == "mmbm" or options.get("granularity") == "tensor":
        assert checked.passed, failing(checked)
    else:
        assert_defended(checked)
    x = case.test[0]
    plain, found = (answers(proto, x) for proto in (onnx.load(case.model), made.detector))
    calm = ~found["mmbm_flagged"]
    assert calm.any()
    for name, values in plain.items():
        assert np.array_equal(found[name][calm], values[calm])


def test_figures_are_of_the_branch_that_ships(case: Case, int8: HardenResult, monkeypatch) -> None:
    """What the report says of the calibration part is what the file answers there."""
    seen = []
    real = pairing.score_clean

    def watched(*args, **options):
        seen.append((options["shadow"], real(*args, **options)))
        return seen[-1][1]

    monkeypatch.setattr(pairing, "score_clean", watched)
    made = harden(case.model, case.folder, shadow="int8", **QUICK)
    (shadow, scoring), *rest = seen
    assert rest == [] and shadow.kind == "int8"
    float_scores = []
    monkeypatch.setattr(
        pairing,
        "score_clean",
        lambda *a, **o: float_scores.append(real(*a, **o)) or float_scores[-1],
    )
    harden(case.model, case.folder, shadow="float", **QUICK)
    assert not np.array_equal(scoring.corrected.score, float_scores[0].corrected.score)
    assert made.detector == int8.detector


def test_the_same_seed_gives_the_same_bytes_in_another_process(case: Case, tmp_path: Path) -> None:
    program = (
        "import sys; from mmbm_onnx import harden; "
        "r = harden(sys.argv[1], sys.argv[2], shadow='int8', epochs=3, batch_size=60, threads=1); "
        "sys.stdout.buffer.write(r.detector.SerializeToString(deterministic=True))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, case.model, case.folder],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] and len(told[0]) > 1000


def shadow_tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (found,) = [
        tensor
        for _, graph in graphs(proto.graph)
        for tensor in graph.initializer
        if tensor.name == f"mmbm_shadow/{name}"
    ]
    return found


def forged(proto: onnx.ModelProto, name: str, step: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensor = shadow_tensor(copy, name)
    values = numpy_helper.to_array(tensor).copy()
    values.ravel()[0] += values.dtype.type(step)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def judged(case: Case, made: HardenResult, detector: onnx.ModelProto) -> dict[str, Gate]:
    return failing(verify(case.model, made.hardened, case.npz, detector=detector))


@pytest.mark.parametrize("weight", ["w/mmbm_folded", "head/mmbm_folded"])
def test_verify_names_a_weight_that_was_changed(
    case: Case, int8: HardenResult, weight: str
) -> None:
    gate = judged(case, int8, forged(int8.detector, f"{weight}_quantized", 2))["detector_bounds"]
    assert f"its shadow branch: weight '{weight}' is" in gate.message


def test_verify_names_a_weight_in_half_that_was_changed(case: Case) -> None:
    made = harden(case.model, case.folder, shadow="half", **QUICK)
    gate = judged(case, made, forged(made.detector, "w/mmbm_folded", 1))["detector_bounds"]
    assert "its shadow branch: weight 'w/mmbm_folded' is" in gate.message


def test_verify_names_a_weight_of_a_folded_branch_that_was_changed(case: Case) -> None:
    made = harden(case.model, case.folder, **QUICK)
    tensor = shadow_tensor(made.detector, "w/mmbm_folded")
    last = float(np.spacing(np.abs(numpy_helper.to_array(tensor).ravel()[0])))
    gate = judged(case, made, forged(made.detector, "w/mmbm_folded", last))["detector_bounds"]
    assert "its shadow branch: weight 'w/mmbm_folded' is" in gate.message


@pytest.mark.parametrize("kind", ["half", "int8"])
def test_verify_does_not_take_a_rounded_branch_for_a_folded_one(case: Case, kind: str) -> None:
    made = harden(case.model, case.folder, shadow=kind, **QUICK)
    (entry,) = [e for e in made.detector.metadata_props if e.key == "mmbm_onnx.shadow"]
    entry.value = "folded"
    gate = judged(case, made, made.detector)["detector_bounds"]
    assert "its shadow branch: " in gate.message


def test_verify_names_a_limit_of_a_folded_branch_that_was_moved(case: Case) -> None:
    """By the last bit: what is not rounded has no slack."""
    made = harden(case.model, case.folder, **QUICK)
    assert judged(case, made, made.detector) == {}
    (limit,) = {
        node.input[2]
        for _, graph in graphs(made.detector.graph)
        for node in graph.node
        if node.op_type == "Clip" and node.output[0].startswith("mmbm_shadow/")
    }
    name = limit.removeprefix("mmbm_shadow/")
    highest = numpy_helper.to_array(shadow_tensor(made.detector, name))
    step = float(np.spacing(highest).reshape(()))
    gate = judged(case, made, forged(made.detector, name, step))["detector_bounds"]
    assert "its shadow branch: weight " in gate.message


def test_fold_never_keeps_the_detectors_weights_too(case: Case) -> None:
    made = harden(case.model, case.folder, fold="never", **QUICK)
    told = made.report["detector"]
    assert told["shadow"] == "float"
    assert told["shadow_reason"] == "no bounds are to be folded into weights"


def test_a_folding_that_fails_is_no_branch_either(case: Case, monkeypatch) -> None:
    real = bounding.Bounding._checked

    def checked(self, written, *rest):
        if written.folded:
            raise RewriteError("it computes something else")
        return real(self, written, *rest)

    monkeypatch.setattr(bounding.Bounding, "_checked", checked)
    reason = "bounds are not folded into weights: it computes something else"
    made = harden(case.model, case.folder, **QUICK)
    told = made.report["detector"]
    assert (told["shadow"], told["shadow_reason"]) == ("float", reason)
    assert reason in made.warnings
    with pytest.raises(RewriteError, match=f"no folded branch: {reason}; use --shadow float"):
        harden(case.model, case.folder, shadow="folded", **QUICK)


@pytest.mark.parametrize("value", [None, "half", "float"])
def test_verify_does_not_take_the_metadatas_word(case: Case, int8: HardenResult, value) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(int8.detector)
    kept = [entry for entry in copy.metadata_props if entry.key != "mmbm_onnx.shadow"]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    if value is not None:
        copy.metadata_props.add(key="mmbm_onnx.shadow", value=value)
    gate = judged(case, int8, copy)["detector_bounds"]
    assert "shadow" in gate.message


def test_verify_wants_the_hardened_graphs_bounds(case: Case, int8: HardenResult) -> None:
    other = harden(case.model, case.folder, **{**QUICK, "epochs": 1})
    checked = verify(case.model, other.hardened, case.npz, detector=int8.detector)
    assert "is not the hardened graph's" in failing(checked)["detector_bounds"].message


def test_verify_sees_a_decision_that_reads_no_shadow(case: Case, int8: HardenResult) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(int8.detector)
    for _, graph in graphs(copy.graph):
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "mmbm_shadow/logits":
                    node.input[place] = "mmbm_odd/odd_logits"
    assert "not read by the decision" in judged(case, int8, copy)["detector_bounds"].message


def test_inspect_tells(int8: HardenResult) -> None:
    assert inspect(int8.detector).provenance["shadow"] == "int8"


def test_a_form_that_fails_with_a_shadow_is_tried_without(case: Case, monkeypatch) -> None:
    real = pairing.build_cascade

    def refuse(*args):
        if args[-1] is not None:
            raise pairing.RewriteError("no shadows today")
        return real(*args)

    monkeypatch.setattr(pairing, "build_cascade", refuse)
    made = harden(case.model, case.folder, shadow="auto", **QUICK)
    told = made.report["detector"]
    assert (told["shadow"], told["shadow_reason"]) == ("float", "no shadows today")
    assert told["second_stage"] == 0.05
    assert not any("no shadows" in line for line in made.warnings)
    # Asked for, it stays: in one stage then.
    made = harden(case.model, case.folder, shadow="int8", **QUICK)
    told = made.report["detector"]
    assert (told["shadow"], told["second_stage"]) == ("int8", None)
    assert any("no shadows today" in line for line in made.warnings)
    with pytest.raises(pairing.RewriteError, match="no shadows today"):
        harden(case.model, case.folder, shadow="int8", cascade="always", **QUICK)


def test_what_cannot_be_is_told_before_learning(case: Case) -> None:
    seen: list[str] = []
    old = network(opset=12)
    with pytest.raises(OptionError, match="no int8 branch: int8 takes opset 13"):
        harden(old, samples(60), shadow="int8", progress=lambda step: seen.append(step.phase))
    assert "write" not in seen
    for shadow in ("int8", "half"):
        with pytest.raises(OptionError, match="asks for a detector"):
            harden(case.model, case.folder, shadow=shadow, detector=False)
    with pytest.raises(OptionError, match="shadow is 'int4', expected"):
        harden(case.model, case.folder, shadow="int4")


def test_auto_tells_why_not(case: Case, monkeypatch) -> None:
    monkeypatch.setattr(shadowing, "_MOST_BYTES", 1000)
    made = harden(network(), samples(80), epochs=2, threads=1)
    told = made.report["detector"]
    assert told["shadow"] == "float"
    assert told["shadow_reason"] == "weights of its own would double the model's 0 MiB"


@pytest.mark.parametrize("shadow", ["int8", "half"])
@pytest.mark.parametrize("batch", ["N", "4"])
@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_a_residual_network_is_hardened_with_a_shadow(shadow, batch, head) -> None:
    proto, clean = network(head, batch=batch), samples(160)
    made = harden(proto, Samples(clean.x, clean.y), shadow=shadow, epochs=4, threads=1)
    assert made.report["detector"]["shadow"] == shadow
    checked = verify(proto, made.hardened, clean, detector=made.detector)
    told = failing(checked)
    assert "detector_bounds" not in told and "detector_unflagged_identical" not in told
    assert "detector_threshold" not in told
