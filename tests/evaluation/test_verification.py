"""Verification: what passes, and every way in which a graph can break its promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import toy_models
from onnx import numpy_helper

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.evaluation.quality import Limits
from mmbm_onnx.evaluation.verification import VerifyResult, verify_graphs
from mmbm_onnx.graph.read import OnnxModel, from_proto

ORIGINAL = toy_models.original()
CLEAN = toy_models.clean()
TRIGGERED = toy_models.triggered()


def verify(hardened: OnnxModel | None = None, **options: object) -> VerifyResult:
    options.setdefault("samples", CLEAN)
    return verify_graphs(ORIGINAL, hardened or toy_models.hardened(), **options)  # type: ignore[arg-type]


def failed(result: VerifyResult) -> list[str]:
    assert result.passed == (not any(not gate.passed for gate in result.gates))
    return [gate.name for gate in result.gates if not gate.passed]


def edited(model: OnnxModel, **constants: np.ndarray) -> OnnxModel:
    """The model with other values for some initializers."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in constants:
            old = numpy_helper.to_array(tensor)
            value = np.broadcast_to(constants.pop(tensor.name).astype(old.dtype), old.shape)
            tensor.CopyFrom(numpy_helper.from_array(np.array(value), tensor.name))
    assert not constants
    return from_proto(proto)


def test_good_graphs_pass_every_gate() -> None:
    limits = Limits(0.0, max_false_positive_rate=0.0, max_attack_success_rate=0.0)
    result = verify(detector=toy_models.detector(), triggered=TRIGGERED, limits=limits)
    assert failed(result) == []
    assert [gate.name for gate in result.gates] == [
        "hardened_valid",
        "hardened_signature",
        "hardened_provenance",
        "hardened_unchanged",
        "hardened_bounds",
        "hardened_not_finite",
        "hardened_accuracy_drop",
        "hardened_effective",
        "detector_valid",
        "detector_signature",
        "detector_provenance",
        "detector_unchanged",
        "detector_bounds",
        "detector_not_finite",
        "detector_accuracy_drop",
        "detector_unflagged_identical",
        "detector_consistent",
        "detector_false_positive_rate",
        "detector_threshold",
        "detector_attack_success_rate",
    ]


def test_figures_are_measured_on_every_graph() -> None:
    result = verify(detector=toy_models.detector(), triggered=TRIGGERED)
    measured = result.measurements
    assert (measured.samples, measured.triggered, measured.bounds) == (60, 40, 1)
    assert measured.original.accuracy == 1.0
    assert measured.original.attack_success_rate == 1.0
    assert measured.original.robust_accuracy == 0.0
    for figures in (measured.hardened, measured.detector):
        assert figures is not None
        assert (figures.accuracy, figures.agreement) == (1.0, 1.0)
        assert (figures.attack_success_rate, figures.robust_accuracy) == (0.0, 1.0)
        assert figures.defense_effectiveness == 1.0
    assert measured.detector is not None and measured.hardened is not None
    assert measured.detector.false_positive_rate == 0.0
    assert measured.detector.true_positive_rate == 1.0
    assert measured.detector.roc_auc == 1.0
    assert measured.hardened.false_positive_rate is None
    assert measured.providers == ("CPUExecutionProvider",)


def test_the_result_is_strict_json() -> None:
    result = verify(detector=toy_models.detector(), triggered=TRIGGERED)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (told["schema"], told["version"], told["passed"]) == ("mmbm-onnx/verify-report", 1, True)
    assert told["files"][0]["sha256"] == ORIGINAL.sha256
    assert told["measurements"]["detector"]["true_positive_rate"] == 1.0


def test_zeroed_bounds_fail() -> None:
    result = verify(edited(toy_models.hardened(), bound=np.zeros(1)))
    assert failed(result) == ["hardened_bounds", "hardened_accuracy_drop"]


def test_the_unhardened_model_is_not_taken_for_a_hardened_one() -> None:
    assert failed(verify(ORIGINAL)) == [
        "hardened_provenance",
        "hardened_bounds",
        "hardened_effective",
    ]


def test_graphs_that_changed_places_are_told() -> None:
    result = verify_graphs(toy_models.hardened(), toy_models.original(), toy_models.clean())
    (gate,) = [gate for gate in result.gates if gate.name == "hardened_provenance"]
    assert not gate.passed and gate.message.endswith("but the original is: are the two swapped?")


def test_a_dropped_bound_contradicts_the_provenance() -> None:
    stated = {"original_sha256": ORIGINAL.sha256, "bounds": "2"}
    result = verify(toy_models.hardened(provenance=stated))
    assert failed(result) == ["hardened_bounds"]
    assert "1 bounds found, its metadata says 2" in {gate.message for gate in result.gates}


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, "metadata has no mmbm_onnx.original_sha256"),
        ({"original_sha256": "0" * 64}, "was made from the model 000000000000..., not from"),
    ],
)
def test_graphs_made_from_another_model_fail(provenance: dict[str, str], message: str) -> None:
    result = verify(
        toy_models.hardened(provenance=provenance),
        detector=toy_models.detector(provenance={**provenance, "false_positive_rate": "0.05"}),
    )
    assert failed(result) == ["hardened_provenance", "detector_provenance"]
    assert sum(message in gate.message for gate in result.gates) == 2


def test_another_signature_fails_without_being_run() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(toy_models.hardened().proto)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "renamed"
    result = verify(from_proto(proto))
    assert failed(result) == ["hardened_signature", "hardened_unchanged"]
    assert result.measurements.hardened is None
    assert failed(verify(detector=toy_models.hardened())) == [
        "detector_signature",
        "detector_bounds",
    ]


def test_accuracy_may_drop_to_the_limit_and_no_further() -> None:
    # Class 1 is bounded away: a third of the samples is lost.
    hardened = edited(toy_models.hardened(), bound=np.asarray([0.5, 0.001, 1.0]))
    lost = verify(hardened).measurements.original.accuracy
    assert lost == 1.0
    assert failed(verify(hardened)) == ["hardened_accuracy_drop"]
    assert failed(verify(hardened, limits=Limits(1 / 3))) == []
    assert failed(verify(hardened, limits=Limits(0.33))) == ["hardened_accuracy_drop"]


def test_without_labels_the_original_decisions_count() -> None:
    unlabelled = toy_models.clean(labelled=False)
    good = verify(samples=unlabelled, detector=toy_models.detector())
    assert failed(good) == []
    assert good.measurements.hardened is not None
    assert good.measurements.hardened.accuracy is None
    bad = verify(edited(toy_models.hardened(), bound=np.zeros(1)), samples=unlabelled)
    assert failed(bad) == ["hardened_bounds", "hardened_agreement"]


def test_outputs_that_are_not_finite_fail() -> None:
    hardened = edited(toy_models.hardened(), gain=np.asarray(np.inf))
    assert "hardened_not_finite" in failed(verify(hardened))


def test_unflagged_rows_must_not_differ_in_a_bit() -> None:
    result = verify(detector=toy_models.detector(leak=1e-7))
    assert failed(result) == ["detector_unflagged_identical"]
    (gate,) = [gate for gate in result.gates if gate.name == "detector_unflagged_identical"]
    assert gate.value is not None and gate.value > 0 and gate.limit == 0


def test_false_positives_are_judged_on_request() -> None:
    detector = toy_models.detector(threshold=0.2)
    assert failed(verify(detector=detector, limits=Limits(1.0))) == []
    limits = Limits(1.0, max_false_positive_rate=0.05)
    assert failed(verify(detector=detector, limits=limits)) == ["detector_false_positive_rate"]


def test_a_detector_that_misses_the_attack_fails_even_beside_a_good_hardened_graph() -> None:
    blind = toy_models.detector(threshold=1000.0)
    limits = Limits(max_attack_success_rate=0.05)
    result = verify(detector=blind, triggered=TRIGGERED, limits=limits)
    assert failed(result) == ["detector_attack_success_rate"]
    assert result.measurements.detector is not None
    assert result.measurements.detector.true_positive_rate == 0.0
    assert result.measurements.detector.roc_auc == 1.0


def test_without_a_detector_the_hardened_graph_must_stop_the_attack() -> None:
    limits = Limits(max_attack_success_rate=0.05)
    loose = toy_models.hardened(bounds=(11.0, 1.0, 1.0))
    result = verify(loose, triggered=TRIGGERED, limits=limits)
    assert failed(result) == ["hardened_attack_success_rate"]


def test_a_detector_that_lies_about_its_decisions_fails() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(toy_models.detector().proto)
    for node in proto.graph.node:
        if node.output[0] == "mmbm_suspected_class":
            node.op_type = "ArgMin"
    result = verify(detector=from_proto(proto))
    assert "detector_consistent" in failed(result)


def test_limits_need_what_they_are_measured_on() -> None:
    with pytest.raises(OptionError, match="needs a detector graph"):
        verify(limits=Limits(max_false_positive_rate=0.1))
    with pytest.raises(OptionError, match="needs a triggered set"):
        verify(limits=Limits(max_attack_success_rate=0.1))
    with pytest.raises(OptionError, match="--max-accuracy-drop is 2, expected a fraction"):
        Limits(2)
    with pytest.raises(OptionError, match="--max-accuracy-drop is nan"):
        Limits(float("nan"))


@pytest.mark.parametrize("part", ["y", "target"])
def test_a_triggered_set_needs_labels_and_targets(part: str) -> None:
    incomplete = replace(TRIGGERED, **{part: None})
    with pytest.raises(DataError, match=rf"triggered\.npz: .*'{part}'"):
        verify(triggered=incomplete)


def test_an_original_that_does_not_know_the_clean_set_stops_the_verification() -> None:
    assert CLEAN.y is not None
    shuffled = replace(CLEAN, y=np.random.default_rng(0).permutation(CLEAN.y))
    with pytest.raises(DataError, match="implausible"):
        verify(samples=shuffled)
    unchecked = verify(samples=shuffled, plausible=False)
    assert unchecked.measurements.original.accuracy is not None


def test_samples_of_one_class_do_where_the_original_knows_them() -> None:
    assert CLEAN.y is not None
    one = CLEAN.take(np.flatnonzero(CLEAN.y == 1))
    result = verify(samples=one)
    assert result.passed
    assert any("of one class (1)" in line for line in result.warnings)
    with pytest.raises(DataError, match="implausible"):
        verify(samples=replace(one, y=np.full(len(one), 2, np.int64)))


def test_a_graph_whose_shapes_contradict_themselves_is_not_valid() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(toy_models.hardened().proto)
    wrong = onnx.helper.make_tensor_value_info("act", onnx.TensorProto.FLOAT, ["N", 7])
    proto.graph.value_info.append(wrong)
    result = verify(from_proto(proto))
    assert failed(result) == ["hardened_valid"]
    assert result.measurements.hardened is None


def test_outputs_without_a_batch_axis_are_left_alone() -> None:
    def with_constant(model: OnnxModel) -> onnx.ModelProto:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        for name, shape in (("scale", []), ("version", [5])):
            value = np.zeros(shape, np.float32)
            node = onnx.helper.make_node(
                "Constant", [], [name], value=numpy_helper.from_array(value)
            )
            proto.graph.node.append(node)
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            proto.graph.output.append(info)
        return proto

    original = from_proto(with_constant(ORIGINAL))
    stated = {"original_sha256": original.sha256}
    hardened = from_proto(with_constant(toy_models.hardened(provenance=stated)))
    result = verify_graphs(original, hardened, CLEAN)
    assert failed(result) == []
