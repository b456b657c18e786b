from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from rewriting_helpers import ONNX_TYPES, ops, parse, run, serialized, session, site, unchanged

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.bounds import round_down
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.types import Bounds

OPSETS = [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]
SCALAR = np.asarray(0.3, np.float32)
CHANNELS = np.asarray([0.1, 0.7, 1.5], np.float32)


def activation(dtype, opset, tail="y = Neg(t)", op="Relu(x)", ir=8) -> onnx.ModelProto:
    kind = ONNX_TYPES[np.dtype(dtype)]
    return parse(
        f"g ({kind}[N, 3, 2] x) => ({kind}[N, 3, 2] y) {{ t = {op} {tail} }}", opset=opset, ir=ir
    )


def expected(x: np.ndarray, bound: np.ndarray) -> np.ndarray:
    limit = round_down(bound, x.dtype)
    limit = limit.reshape(-1, 1) if bound.ndim else limit
    return -np.minimum(np.maximum(x, 0), limit)


def samples(dtype) -> np.ndarray:
    x = np.random.default_rng(0).normal(0, 1, (50, 3, 2)).astype(dtype)
    x[0, 0, 0], x[1, 1, 1] = np.inf, -np.inf
    return x


def harden(model: onnx.ModelProto, where, bound) -> onnx.ModelProto:
    before = serialized(model)
    hardened = insert_bounds(model, [where], Bounds({where.tensor: bound}))
    assert serialized(model) == before
    check_written(hardened)
    check_signature(model, hardened)
    return hardened


@pytest.mark.parametrize("bound", [SCALAR, CHANNELS], ids=["scalar", "channels"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("opset", OPSETS)
def test_a_relu_is_bounded_at_every_opset_and_type(opset, dtype, bound):
    where = site("t", 3, dtype=dtype, rank=3)
    model = activation(dtype, opset)
    if opset < 8 and (bound.ndim or dtype == np.float64):
        with pytest.raises(RewriteError, match=f"opset {opset}"):
            insert_bounds(model, [where], Bounds({"t": bound}))
        return
    hardened = harden(model, where, bound)
    x = samples(dtype)
    (y,) = run(hardened, x=x)
    assert y.dtype == dtype
    assert np.array_equal(y, expected(x, bound))
    if opset >= 8:
        (reference,) = ReferenceEvaluator(hardened).run(None, {"x": x})
        assert np.array_equal(reference, expected(x, bound))


@pytest.mark.parametrize("bound", [SCALAR, CHANNELS], ids=["scalar", "channels"])
def test_bfloat16_is_bounded_too(bound):
    model = parse("g (bfloat16[N, 3, 2] x) => (bfloat16[N, 3, 2] y) { t = Relu(x) y = Neg(t) }")
    hardened = harden(model, site("t", 3, dtype=ml_dtypes.bfloat16, rank=3), bound)
    x = samples(ml_dtypes.bfloat16)
    (y,) = ReferenceEvaluator(hardened).run(None, {"x": x})
    assert np.array_equal(y, expected(x, bound))


def test_a_nan_is_not_hidden():
    hardened = harden(activation(np.float32, 17), site("t", 3, rank=3), SCALAR)
    (y,) = run(hardened, x=np.full((1, 3, 2), np.nan, np.float32))
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("bound", "op", "shape"), [(SCALAR, "Clip", []), (CHANNELS, "Min", [3, 1])]
)
def test_the_original_is_kept_and_the_bound_added_after_it(bound, op, shape):
    model = activation(np.float32, 17)
    model.graph.node[0].name = "relu"
    hardened = harden(model, site("t", 3, rank=3), bound)
    relu, added, neg = hardened.graph.node
    assert (relu.name, list(relu.output)) == ("relu", ["t/mmbm_unbounded"])
    assert (added.op_type, added.name, added.input[0], list(added.output)) == (
        op, "t/mmbm_bound", "t/mmbm_unbounded", ["t"],
    )  # fmt: skip
    assert serialized(neg) == serialized(model.graph.node[1])
    (constant,) = hardened.graph.initializer
    assert (constant.name, list(constant.dims)) == ("t/mmbm_bound", shape)
    assert constant.name in added.input


def test_a_scalar_bound_costs_no_node_in_onnx_runtime(tmp_path):
    rng = np.random.default_rng(0)
    model = parse(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
            a = Conv(x, w)
            t = Relu(a)
            y = Neg(t)
        }
        """,
        w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
    )
    hardened = harden(model, site("t", 4, rank=4), SCALAR)
    for name, graph in (("original", model), ("hardened", hardened)):
        session(graph, tmp_path / name)
    fused = [ops(onnx.load(tmp_path / name).graph.node) for name in ("original", "hardened")]
    assert not {"Relu", "Clip"} & set(fused[1])
    assert len(fused[0]) == len(fused[1])


@pytest.mark.parametrize("opset", [6, 8, 10, 11, 13, 20])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_relu6_is_tightened_by_a_scalar(opset, dtype):
    limits = "<min=0.0, max=6.0>(x)" if opset < 11 else "(x, low, high)"
    model = activation(dtype, opset, op=f"Clip{limits}")
    if opset >= 11:
        for name, value in (("low", 0), ("high", 6)):
            tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
            model.graph.initializer.append(tensor)
    where = site("t", 3, kind="Clip", dtype=dtype, rank=3, upper=6.0)
    hardened = harden(model, where, SCALAR)
    assert ops(hardened.graph.node) == ["Clip", "Neg"]
    x = samples(dtype) * 5
    assert np.array_equal(run(hardened, x=x)[0], expected(x, SCALAR))


def relu6(tail: str, *outputs: str) -> onnx.ModelProto:
    shapes = ", ".join(f"float[N, 3] {name}" for name in outputs)
    return parse(
        f"g (float[N, 3] x) => ({shapes}) {{ t = Clip(x, low, high) {tail} }}",
        low=np.asarray(0, np.float32),
        high=np.asarray(6, np.float32),
    )


def test_a_shared_limit_stays_as_it_is_for_others():
    model = relu6("u = Clip(x, low, high) y = Sub(u, t)", "y")
    hardened = harden(model, site("t", 3, kind="Clip", upper=6.0), np.asarray(2, np.float32))
    (y,) = run(hardened, x=np.asarray([[1, 5, 9]], np.float32))
    assert np.array_equal(y, [[0, 3, 4]])


def test_a_bound_never_loosens_a_relu6():
    hardened = harden(
        relu6("y = Identity(t)", "y"),
        site("t", 3, kind="Clip", upper=6.0),
        np.asarray(50, np.float32),
    )
    assert run(hardened, x=np.full((1, 3), 9, np.float32))[0].max() == 6


def test_a_relu6_takes_a_bound_per_channel_in_a_node_after_it():
    bound = np.asarray([1, 2, 50], np.float32)
    hardened = harden(relu6("y = Identity(t)", "y"), site("t", 3, kind="Clip", upper=6.0), bound)
    assert ops(hardened.graph.node) == ["Clip", "Min", "Identity"]
    (y,) = run(hardened, x=np.full((1, 3), 9, np.float32))
    assert np.array_equal(y, [[1, 2, 6]])


@pytest.mark.parametrize("bound", [SCALAR, CHANNELS], ids=["scalar", "channels"])
def test_a_site_that_is_a_graph_output_keeps_name_and_place(bound):
    model = parse(
        "g (float[N, 3] x) => (float[N, 3] a, float[N, 3] t, float[N, 3] b)"
        "{ t = Relu(x) a = Neg(t) b = Neg(x) }"
    )
    hardened = harden(model, site("t", 3), bound)
    x = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    a, t, b = run(hardened, x=x)
    assert np.array_equal(t, np.minimum(np.maximum(x, 0), bound))
    assert np.array_equal(a, -t) and np.array_equal(b, -x)


def test_channels_on_the_last_axis():
    model = activation(np.float32, 17)
    bound = np.asarray([0.2, 0.9], np.float32)
    hardened = harden(model, site("t", 2, rank=3, axis=2), bound)
    x = samples(np.float32)
    assert np.array_equal(run(hardened, x=x)[0], -np.minimum(np.maximum(x, 0), bound))


BRANCHES = """
g (float[N, 3] x, bool c) => (float[N, 3] y) {
    y = If(c) <
        then_branch = t () => (float[N, 3] p) { t = Relu(x) p = Neg(t) },
        else_branch = e () => (float[N, 3] q) { q = Relu(x) }
    >
}
"""


@pytest.mark.parametrize("ir", [3, 8])
@pytest.mark.parametrize("bound", [SCALAR, CHANNELS], ids=["scalar", "channels"])
def test_sites_in_subgraphs(ir, bound):
    model = parse(BRANCHES, ir=ir)
    sites = [site("t", 3, scope="If/then_branch"), site("q", 3, scope="If/else_branch")]
    other = np.asarray(0.05, np.float32)
    hardened = insert_bounds(model, sites, Bounds({"t": bound, "q": other}))
    check_written(hardened)
    check_signature(model, hardened)
    x = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    (y,) = run(hardened, x=x, c=np.asarray(True))
    assert np.array_equal(y, -np.minimum(np.maximum(x, 0), bound))
    (y,) = run(hardened, x=x, c=np.asarray(False))
    assert np.array_equal(y, np.minimum(np.maximum(x, 0), other))


def test_below_ir_4_the_inputs_stay_the_same():
    model = activation(np.float32, 11, ir=3)
    hardened = harden(model, site("t", 3, rank=3), SCALAR)
    assert ops(hardened.graph.node) == ["Relu", "Constant", "Clip", "Neg"]
    assert not hardened.graph.initializer
    x = samples(np.float32)
    assert np.array_equal(run(hardened, x=x)[0], expected(x, SCALAR))


def test_a_taken_name_is_passed_over():
    model = parse(
        "g (float[N, 3] x) => (float[N, 3] y) { t = Relu(x) taken = Neg(t) y = Neg(taken) }"
    )
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "taken":
                    names[index] = "t/mmbm_unbounded"
    hardened = harden(model, site("t", 3), SCALAR)
    assert hardened.graph.node[0].output[0] == "t/mmbm_unbounded_1"
    x = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    assert np.array_equal(run(hardened, x=x)[0], np.minimum(np.maximum(x, 0), SCALAR))


def test_declared_types_are_kept_and_given_to_the_unbounded_tensor():
    model = onnx.shape_inference.infer_shapes(activation(np.float32, 17))
    hardened = harden(model, site("t", 3, rank=3), SCALAR)
    infos = {info.name: info.type for info in hardened.graph.value_info}
    assert infos["t"] == infos["t/mmbm_unbounded"] == model.graph.value_info[0].type


def test_a_site_without_a_bound_is_left_alone():
    model = activation(np.float32, 17)
    assert serialized(insert_bounds(model, [site("t", 3)], Bounds({}))) == serialized(model)


def test_the_same_twice_gives_the_same_bytes():
    model = activation(np.float32, 17)
    first, second = (harden(unchanged(model), site("t", 3, rank=3), CHANNELS) for _ in range(2))
    assert serialized(first) == serialized(second)


@pytest.mark.parametrize(
    ("where", "bounded", "message"),
    [
        (site("t", 3), "other", "'other', which is no activation site"),
        (site("y", 3), "y", "comes from Neg, not Relu"),
        (site("nowhere", 3), "nowhere", "no node"),
    ],
)
def test_a_bound_without_an_activation_is_refused(where, bounded, message):
    with pytest.raises(RewriteError, match=message):
        insert_bounds(activation(np.float32, 17), [where], Bounds({bounded: SCALAR}))


def test_an_ambiguous_tensor_is_refused():
    model = parse(BRANCHES.replace("q = Relu(x)", "t = Relu(x) q = Neg(t)"))
    with pytest.raises(RewriteError, match="2 nodes"):
        insert_bounds(model, [site("t", 3)], Bounds({"t": SCALAR}))
