"""Verification of graphs that the rewriting room wrote, opset by opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from mmbm_onnx.evaluation.compare import bounds_in
from mmbm_onnx.evaluation.structure import structure_gates
from mmbm_onnx.evaluation.verification import verify_graphs
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import stamp
from mmbm_onnx.graph.read import OnnxModel, from_proto
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.types import Bounds, Samples

OLD = """<ir_version: 5, opset_import: ["" : 9]>
old ({type}[N, 6] x) => ({type}[N, 3] y) <{type}[6, 5] w = {{{w}}}, {type}[5, 3] v = {{{v}}}> {{
    a = MatMul(x, w)
    first = Relu(a)
    second = Clip <min = 0.0, max = 6.0> (first)
    y = MatMul(second, v)
}}"""
NEW = """<ir_version: 8, opset_import: ["" : 17]>
new ({type}[N, 6] x) => ({type}[N, 3] y) <{type}[6, 5] w = {{{w}}}, {type}[5, 3] v = {{{v}}},
     {type} low = {{0}}, {type} high = {{6}}> {{
    a = MatMul(x, w)
    first = Relu(a)
    second = Clip(first, low, high)
    y = MatMul(second, v)
}}"""


def model(text: str, kind: str = "float") -> OnnxModel:
    rng = np.random.default_rng(0)
    weights = {
        name: ", ".join(f"{value:.3f}" for value in rng.normal(size=size))
        for name, size in (("w", 30), ("v", 15))
    }
    return from_proto(onnx.parser.parse_model(text.format(type=kind, **weights)))


def written(original: OnnxModel, bounds: Bounds) -> OnnxModel:
    proto = insert_bounds(original.proto, find_sites(original.proto).sites, bounds)
    stamp(proto, {"original_sha256": original.sha256, "bounds": str(len(bounds))})
    return from_proto(proto)


def bounds_of(shape: tuple[int, ...]) -> Bounds:
    values = np.linspace(0.5, 1.0, num=int(np.prod(shape))).astype(np.float32).reshape(shape)
    return Bounds({"first": values, "second": values / 2})


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("text", [OLD, NEW])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_every_written_bound_is_found_with_its_value(text, kind, shape) -> None:
    original, bounds = model(text, kind), bounds_of(shape)
    found = bounds_in(original.proto, written(original, bounds).proto)
    assert list(found) == ["first", "second"]
    for tensor, bound in bounds.items():
        read = found[tensor]
        assert read is not None
        assert np.allclose(read.reshape(bound.shape), bound, rtol=1e-6)


@pytest.mark.parametrize("text", [OLD, NEW])
def test_a_relu6_that_keeps_its_limit_still_counts(text) -> None:
    original = model(text)
    loose = Bounds({"first": np.float32(0.5).reshape(()), "second": np.float32(6).reshape(())})
    gates, _ = structure_gates("hardened", original, written(original, loose))
    assert [gate.name for gate in gates if not gate.passed] == []


def test_a_bound_that_was_dropped_is_noticed() -> None:
    original = model(NEW)
    proto = insert_bounds(
        original.proto, find_sites(original.proto).sites[:1], Bounds({"first": np.ones(5, "f4")})
    )
    stamp(proto, {"original_sha256": original.sha256, "bounds": "3"})
    gates, count = structure_gates("hardened", original, from_proto(proto))
    assert count == 1
    assert [gate.name for gate in gates if not gate.passed] == ["hardened_bounds"]


def test_written_graphs_pass_verification() -> None:
    original, bounds = model(NEW), bounds_of((5,))
    interface = find_interface(original.proto)
    x = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    null = fit_null(np.linspace(0, 1, 200).astype(np.float32), 0.05)
    proto = build_detector(
        original.proto, interface, find_sites(original.proto).sites, bounds, null
    )
    rate = {"false_positive_rate": "0.05"}
    stamp(proto, {"original_sha256": original.sha256, "bounds": "2", **rate})
    result = verify_graphs(
        original, written(original, bounds), Samples(x), detector=from_proto(proto)
    )
    failing = {gate.name: gate.message for gate in result.gates if not gate.passed}
    # Arbitrary bounds change decisions; nothing else may fail.
    assert set(failing) <= {"hardened_agreement", "detector_agreement"}
    detector = result.measurements.detector
    assert detector is not None and detector.false_positive_rate is not None
    assert 0 < detector.false_positive_rate < 1
