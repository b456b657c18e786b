"""What folding changed can be undone, and whatever else was changed is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.evaluation.compare import bounds_in
from mmbm_onnx.evaluation.unfolding import unfold
from mmbm_onnx.graph.provenance import PREFIX, stamp
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.folding.record import FOLDED, Record
from mmbm_onnx.types import Bounds

BOUNDS = Bounds(
    {
        "first": np.float32([0.5, 1.0, 1.5, 2.0]),
        "second": np.float32([2.0, 0.25, 1.0]),
    }
)


def original() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w": (4, 2, 3, 3), "b": (4,), "v": (3, 4, 1, 1), "m": (3, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["first"]),
            helper.make_node("Conv", ["first", "v"], ["c"]),
            helper.make_node("Relu", ["c"], ["second"]),
            helper.make_node("GlobalAveragePool", ["second"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folded() -> onnx.ModelProto:
    proto = original()
    found = fold_bounds(proto, find_sites(proto).sites, BOUNDS)
    assert found.folded == ("first", "second")
    stamp(found.proto, {FOLDED: Record(BOUNDS, True, ()).write()})
    return found.proto


def test_a_folded_graph_is_the_one_with_min_again() -> None:
    found = unfold(original(), folded())
    assert (found.folded, found.difference) == (True, "")
    stated = bounds_in(original(), found.proto)
    assert set(stated) == set(BOUNDS)
    for name, bound in BOUNDS.items():
        assert stated[name] is not None
        assert np.asarray(stated[name]).ravel().tolist() == bound.tolist()


def test_a_graph_that_was_not_folded_is_left_as_it_is() -> None:
    proto = original()
    found = unfold(proto, proto)
    assert found.proto is proto
    assert (found.folded, found.difference) == (False, "")


def _weight(proto: onnx.ModelProto, part: str) -> onnx.TensorProto:
    return next(t for t in proto.graph.initializer if part in t.name)


def _nudge(part: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        tensor = _weight(proto, part)
        values = numpy_helper.to_array(tensor).copy()
        values.reshape(-1)[-1] = np.nextafter(values.reshape(-1)[-1], np.float32(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def _add_node(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Neg", ["y"], ["z"]))


def _drop_clip(proto: onnx.ModelProto) -> None:
    clip = next(node for node in proto.graph.node if node.op_type == "Clip")
    clip.op_type = "Identity"
    del clip.input[1:]


def _raise_in_metadata(proto: onnx.ModelProto) -> None:
    raised = Bounds({name: 2 * bound for name, bound in BOUNDS.items()})
    entry = next(e for e in proto.metadata_props if e.key == PREFIX + FOLDED)
    entry.value = Record(raised, True, ()).write()


def _unknown_site(proto: onnx.ModelProto) -> None:
    entry = next(e for e in proto.metadata_props if e.key == PREFIX + FOLDED)
    told = json.loads(entry.value)
    told["bounds"]["third"] = told["bounds"].pop("second")
    entry.value = json.dumps(told)


def _too_few_channels(proto: onnx.ModelProto) -> None:
    entry = next(e for e in proto.metadata_props if e.key == PREFIX + FOLDED)
    short = Bounds({"first": BOUNDS["first"][:3], "second": BOUNDS["second"]})
    entry.value = Record(short, True, ()).write()


def _unreadable(proto: onnx.ModelProto) -> None:
    entry = next(e for e in proto.metadata_props if e.key == PREFIX + FOLDED)
    entry.value = "{"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_nudge("w/mmbm_folded"), "weight 'w/mmbm_folded'"),
        (_nudge("b/mmbm_folded"), "weight 'b/mmbm_folded'"),
        (_nudge("m/mmbm_folded"), "weight 'm/mmbm_folded'"),
        (_nudge("/mmbm_bound"), "weight 'first/mmbm_bound'"),
        (_add_node, "nodes"),
        (_drop_clip, "computes 'first'"),
        (_raise_in_metadata, "first/mmbm_bound"),
        (_unknown_site, "'third'"),
        (_too_few_channels, "3 bounds for 'first'"),
        (_unreadable, "cannot be read"),
    ],
)
def test_whatever_else_was_changed_is_told(
    change: Callable[[onnx.ModelProto], None], told: str
) -> None:
    proto = folded()
    change(proto)
    found = unfold(original(), proto)
    assert found.folded
    assert told in found.difference


NESTED = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 6, 6] x) => (float[N, 4] y)
<float[4, 2, 3, 3] w, float[4, 4] k, float[4, 4] m, bool c = {1}> {
    a = Conv(x, w)
    first = Relu(a)
    pooled = GlobalAveragePool(first)
    flat = Flatten(pooled)
    d = MatMul(flat, k)
    z = If(c) <
        then_branch = t () => (float[N, 4] p) { q = Neg(d) p = Relu(q) },
        else_branch = e () => (float[N, 4] r) { s = Abs(d) r = Relu(s) }
    >
    y = MatMul(z, m)
}"""


@pytest.mark.parametrize("value", [np.inf, -1.0, 1e6])
def test_a_bound_that_was_changed_in_a_subgraph_is_told(value: float) -> None:
    proto = onnx.parser.parse_model(NESTED)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 2, 3, 3)), ("k", (4, 4)), ("m", (4, 4))):
        values = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    sites = find_sites(proto).sites
    bounds = Bounds({site.tensor: np.full(4, 0.5, np.float32) + rng.random(4) for site in sites})
    bounds = Bounds({name: bound.astype(np.float32) for name, bound in bounds.items()})
    found = fold_bounds(proto, sites, bounds)
    assert found.folded == ("first",)
    stamp(found.proto, {FOLDED: Record(bounds, True, ()).write()})
    assert unfold(proto, found.proto).difference == ""
    (choice,) = [node for node in found.proto.graph.node if node.op_type == "If"]
    inner = next(a.g for a in choice.attribute if a.name == "then_branch")
    (limit,) = [t for t in inner.initializer if "/mmbm_bound" in t.name]
    limit.CopyFrom(numpy_helper.from_array(np.full(4, value, np.float32), limit.name))
    assert "subgraph" in unfold(proto, found.proto).difference


def test_weights_too_small_for_normal_numbers_fold_alike_however_those_are_taken() -> None:
    proto = original()
    weight = proto.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0] *= np.float32(1e-38)
    values[1] *= np.float32(1e-40)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    sites = find_sites(proto).sites
    torch = pytest.importorskip("torch")
    written = []
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            written.append(fold_bounds(proto, sites, BOUNDS).proto.SerializeToString())
        finally:
            torch.set_flush_denormal(True)  # as for all tests
    assert written[0] == written[1]
