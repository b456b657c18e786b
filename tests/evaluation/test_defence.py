"""Graphs that keep the original's answers and defend nothing are told from those that defend."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import toy_models
from onnx import numpy_helper

from mmbm_onnx.evaluation.defence import (
    detector_bounds,
    detector_threshold,
    hardened_effective,
    probe_inputs,
)
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.evaluation.predictions import predict_detector
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Bounds

ORIGINAL = toy_models.original_proto()
INTERFACE = find_interface(ORIGINAL)
SITES = find_sites(ORIGINAL).sites
X = toy_models.clean().x
TENSOR = Bounds({"act": np.float32(0.7).reshape(())})
CHANNEL = Bounds({"act": np.asarray(toy_models.BOUNDS, np.float32)})
THRESHOLD = "mmbm_decision/threshold"


def hardened(bounds: Bounds) -> onnx.ModelProto:
    return insert_bounds(ORIGINAL, SITES, bounds)


def detector(
    bounds: Bounds = TENSOR, count: int = 60, rate: float = 0.1, *, steady: bool = False
) -> onnx.ModelProto:
    """With a null of the clean samples' own scores."""
    draft = build_detector(ORIGINAL, INTERFACE, SITES, bounds, fit_null(np.zeros(2), 0.5))
    null = fit_null(verdicts(draft).score[:count], rate, steady=steady)
    proto = build_detector(ORIGINAL, INTERFACE, SITES, bounds, null)
    stamp(proto, {"false_positive_rate": repr(rate)})
    return proto


def verdicts(proto: onnx.ModelProto):
    return predict_detector(Session(proto), INTERFACE, X)


def with_constant(proto: onnx.ModelProto, name: str, value: float) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    (tensor,) = [entry for entry in changed.graph.initializer if entry.name == name]
    array = np.full_like(numpy_helper.to_array(tensor), value)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return changed


def effective(proto: onnx.ModelProto) -> Gate:
    return hardened_effective(ORIGINAL, proto, INTERFACE, X)


def threshold(proto: onnx.ModelProto) -> Gate:
    return detector_threshold(proto, verdicts(proto))


@pytest.mark.parametrize("bounds", [TENSOR, CHANNEL])
def test_bounds_that_bind_are_effective(bounds) -> None:
    assert effective(hardened(bounds)).passed


def test_bounds_that_no_clean_sample_reaches_are_effective_on_amplified_ones() -> None:
    assert effective(hardened(Bounds({"act": np.full(3, X.max() * 2, np.float32)}))).passed


@pytest.mark.parametrize("shape", [(), (3,)])
def test_bounds_of_1e30_bound_nothing(shape) -> None:
    gate = effective(hardened(Bounds({"act": np.full(shape, 1e30, np.float32)})))
    assert not gate.passed
    assert "they bound nothing" in gate.message


def test_a_graph_without_the_logits_cannot_be_measured() -> None:
    other = onnx.ModelProto()
    other.CopyFrom(ORIGINAL)
    other.graph.node[-1].output[0] = other.graph.output[0].name = "renamed"
    gate = effective(other)
    assert not gate.passed
    assert gate.message.startswith("could not be measured: ")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probes_are_seeded_finite_and_go_beyond_the_data(dtype) -> None:
    x = (np.arange(60).reshape(20, 3) + 1).astype(dtype)
    probes = probe_inputs(x)
    assert probes.dtype == x.dtype and np.isfinite(probes).all()
    assert np.array_equal(probes[: len(x)], x)
    assert np.array_equal(probes, probe_inputs(x))
    assert probes.max() > 3 * x.max()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_probes_of_integers_stay_between_those_of_the_data(dtype) -> None:
    x = (np.arange(60).reshape(20, 3) + 1).astype(dtype)
    probes = probe_inputs(x)
    assert probes.dtype == x.dtype
    assert np.array_equal(probes[: len(x)], x)
    assert np.array_equal(probes, probe_inputs(x))
    others = probes[len(x) :]
    assert (others.min(), others.max()) == (1, 60)
    same = others[:20]  # one value of each sample's, all over it
    assert (same == same[:, :1]).all() and (same[:, :1] == x).any(1).all()
    assert len(np.unique(others[20:84], axis=0)) == 64
    assert set(np.unique(others[84:])) == {1, 60}


@pytest.mark.parametrize("bounds", [TENSOR, CHANNEL])
def test_the_same_bounds_in_both_graphs_pass(bounds) -> None:
    assert detector_bounds(ORIGINAL, hardened(bounds), detector(bounds), INTERFACE).passed


def test_other_bounds_in_the_detector_fail() -> None:
    gate = detector_bounds(ORIGINAL, hardened(TENSOR), detector(CHANNEL), INTERFACE)
    assert not gate.passed
    assert gate.message == "the bound of 'act' is not the hardened graph's"


def test_a_detector_without_a_bounded_branch_fails() -> None:
    gate = detector_bounds(ORIGINAL, hardened(TENSOR), ORIGINAL, INTERFACE)
    assert not gate.passed
    assert gate.message == "its bounded branch has no bound of 'act'"


@pytest.mark.parametrize(("count", "kind"), [(60, "conformal"), (5, "gaussian")])
@pytest.mark.parametrize("rate", [0.02, 0.1])
@pytest.mark.parametrize("steady", [False, True])
def test_thresholds_of_their_null_pass(count, kind, rate, steady) -> None:
    gate = threshold(detector(count=count, rate=rate, steady=steady))
    assert gate.passed, gate.message
    assert gate.message.startswith(kind)


@pytest.mark.parametrize("count", [60, 5])
@pytest.mark.parametrize("value", [1e30, -1.0])
def test_another_threshold_fails(count, value) -> None:
    gate = threshold(with_constant(detector(count=count), THRESHOLD, value))
    assert not gate.passed
    assert gate.message.startswith(f"the threshold is {value:g}")


def test_a_null_of_other_scores_fails_even_with_its_own_threshold() -> None:
    proto = with_constant(detector(), THRESHOLD, 1e30)
    gate = threshold(with_constant(proto, "mmbm_decision/null_scores", 1e30))
    assert not gate.passed
    assert "fitted to other scores" in gate.message


def test_flags_that_do_not_follow_the_threshold_fail() -> None:
    proto = detector()
    (compare,) = [node for node in proto.graph.node if THRESHOLD in node.input]
    compare.input[1] = "mmbm_decision/null_size"  # a constant far above the scores
    gate = threshold(proto)
    assert not gate.passed
    assert "not flagged as their scores tell" in gate.message


def test_p_values_that_do_not_follow_the_null_fail() -> None:
    gate = threshold(with_constant(detector(), "mmbm_decision/null_size", 500))
    assert not gate.passed
    assert "p-value" in gate.message


@pytest.mark.parametrize(("name", "value"), [("tail_share", 0.9), ("tail_fall", -1e9)])
def test_a_tail_that_is_not_the_nulls_fails(name, value) -> None:
    assert threshold(detector(steady=True)).passed
    gate = threshold(with_constant(detector(steady=True), f"mmbm_decision/{name}", value))
    assert not gate.passed
    assert "p-value" in gate.message


@pytest.mark.parametrize("text", [None, "often", "1.5", "nan"])
def test_a_rate_that_is_not_told_fails(text) -> None:
    proto = detector()
    (entry,) = proto.metadata_props
    if text is None:
        proto.metadata_props.remove(entry)
    else:
        entry.value = text
    gate = threshold(proto)
    assert not gate.passed
    assert "mmbm_onnx.false_positive_rate" in gate.message


def test_a_graph_without_a_stored_threshold_fails() -> None:
    stated = onnx.ModelProto()
    stated.CopyFrom(ORIGINAL)
    stamp(stated, {"false_positive_rate": "0.1"})
    gate = detector_threshold(stated, verdicts(detector()))
    assert not gate.passed
    assert gate.message == "it has no constant mmbm_decision/threshold"
