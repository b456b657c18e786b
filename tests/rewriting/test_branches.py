"""What the bounded branch copies, what it shares, and what it must not touch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from rewriting_helpers import (
    ONNX_TYPES,
    interface,
    ops,
    parse,
    random_bounds,
    relu_sites,
    run,
    run_named,
    serialized,
    session,
    site,
)

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds


def flag_share(scores: np.ndarray, rate: float = 0.5):
    """A null that flags about ``rate`` of the rows with these scores."""
    return fit_null(scores[np.isfinite(scores)], rate)


def pair(model, who, sites, bounds, x, **options):
    """Hardened graph and detector, whose null flags about half of ``x``."""
    hardened = insert_bounds(model, sites, bounds)
    start = fit_null(np.zeros(9, np.float32), 0.5)
    scores = run_named(
        build_detector(model, who, sites, bounds, start, **options), **{who.input: x}
    )
    null = flag_share(scores["mmbm_score"])
    built = build_detector(model, who, sites, bounds, null, **options)
    check_written(built)
    check_signature(model, built, DETECTOR_OUTPUTS)
    for before, after in zip(model.graph.node, built.graph.node, strict=False):
        assert (before.op_type, before.name) == (after.op_type, after.name)
        assert list(before.attribute) == list(after.attribute)
        assert list(before.input) == [name.removesuffix("/mmbm_original") for name in after.input]
    return hardened, built


def assert_right(model, hardened, built, who, x):
    """Unflagged rows are the original's bits; flagged rows the hardened graph's, masked."""
    original = run_named(model, **{who.input: x})
    bounded = run_named(hardened, **{who.input: x})
    answers = run_named(built, **{who.input: x})
    flagged = answers["mmbm_flagged"]
    assert 0.2 < flagged.mean() < 0.8
    for name, value in original.items():
        assert answers[name].dtype == value.dtype and answers[name].shape == value.shape
        assert np.array_equal(answers[name][~flagged], value[~flagged])
    scores = original[who.output]
    assert np.array_equal(answers["mmbm_suspected_class"], scores.argmax(1))
    assert (answers[who.output][flagged].argmax(1) != scores[flagged].argmax(1)).all()
    assert np.array_equal(answers[who.output].argmax(1), answers["mmbm_corrected_class"])
    assert np.isfinite(answers[who.output]).all()
    if who.head == "logits":
        others = np.arange(who.classes) != scores.argmax(1)[:, None]
        close = 2e-2 if scores.dtype == np.float16 else 1e-5
        kept = others & flagged[:, None]
        corrected, wanted = answers[who.output][kept], bounded[who.output][kept]
        assert np.allclose(corrected, wanted, rtol=close, atol=close)
    return answers


def margin(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    mask = np.arange(values.shape[1]) == classes[:, None]
    return values[mask] - np.where(mask, -np.inf, values).max(1)


def residual(dtype=np.float32, body="", batch="N", head="", outputs="") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    kind = ONNX_TYPES[np.dtype(dtype)]
    outputs = outputs or f"{kind}[{batch}, 10] logits"
    body = body or "d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, act)"
    model = parse(
        f"""
        net ({kind}[{batch}, 3, 8, 8] x) => ({outputs}) {{
            c = Conv<pads=[1,1,1,1]>(x, w1)
            act = Relu(c)
            {body}
            last = Relu(s)
            p = GlobalAveragePool(last)
            f = Flatten(p)
            logits = Gemm(f, w3, b3)
            {head}
        }}
        """,
        w1=(rng.normal(size=(16, 3, 3, 3)) / 5).astype(dtype),
        w2=(rng.normal(size=(16, 16, 3, 3)) / 12).astype(dtype),
        w3=rng.normal(size=(16, 10)).astype(dtype),
        b3=rng.normal(size=10).astype(dtype),
    )
    if "w4" in body:
        entry = (rng.normal(size=(16, 3, 3, 3)) / 5).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(entry, "w4"))
    return model


def images(n=400, dtype=np.float32, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (n, 3, 8, 8)).astype(dtype)


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_residual_net(dtype, share_prefix):
    model = residual(dtype)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10, dtype=dtype), images(dtype=dtype)
    hardened, built = pair(model, who, sites, bounds, x, share_prefix=share_prefix)
    answers = assert_right(model, hardened, built, who, x)
    classes = answers["mmbm_suspected_class"]
    wanted = margin(run(model, x=x)[0].astype(np.float32), classes) - margin(
        run(hardened, x=x)[0].astype(np.float32), classes
    )
    assert np.allclose(answers["mmbm_score"], wanted, atol=1e-4 if dtype == np.float32 else 0.05)
    assert np.corrcoef(answers["mmbm_score"], wanted)[0, 1] > 0.99


def test_float16_classes_are_compared_as_they_are_rounded():
    # Near 500 float16 numbers are 1/4 apart, so that many rows have equal classes.
    rng = np.random.default_rng(0)
    model = parse(
        """
        g (float16[N, 8] x) => (float16[N, 10] logits) {
            h = Gemm(x, w1, b1)
            act = Relu(h)
            logits = Gemm(act, w2, b2)
        }
        """,
        w1=rng.normal(size=(8, 16)).astype(np.float16),
        b1=rng.normal(size=16).astype(np.float16),
        w2=(rng.normal(size=(16, 10)) / 16).astype(np.float16),
        b2=np.full(10, 500, np.float16),
    )
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10, dtype=np.float16), rng.normal(size=(3000, 8)).astype(np.float16)
    (original,) = run(model, x=x)
    assert ((original == original.max(1, keepdims=True)).sum(1) > 1).mean() > 0.1
    start = fit_null(np.arange(9, dtype=np.float32), 0.5)
    hardened = insert_bounds(model, sites, bounds)
    for null in (start, flag_share(np.arange(-99, -9, dtype=np.float32))):
        answers = run_named(build_detector(model, who, sites, bounds, null), x=x)
        flagged = answers["mmbm_flagged"]
        assert np.array_equal(answers["mmbm_suspected_class"], original.argmax(1))
        assert np.array_equal(answers["logits"][~flagged], original[~flagged])
        assert np.array_equal(answers["mmbm_corrected_class"], answers["logits"].argmax(1))
        classes = answers["mmbm_suspected_class"]
        bounded = run(hardened, x=x)[0].astype(np.float32)
        wanted = margin(original.astype(np.float32), classes) - margin(bounded, classes)
        assert np.array_equal(answers["mmbm_score"], wanted.astype(np.float32))
    assert flagged.all()


@pytest.mark.parametrize(("share_prefix", "convolutions"), [(True, 3), (False, 4)])
def test_what_lies_before_the_first_bound_is_computed_once(share_prefix, convolutions):
    model = residual()
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2))
    who = interface(10)
    _, built = pair(model, who, sites, bounds, images(), share_prefix=share_prefix)
    assert ops(built.graph.node).count("Conv") == convolutions


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weights_are_stored_once(dtype):
    model = residual(dtype)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2))
    _, built = pair(model, interface(10, dtype=dtype), sites, bounds, images(dtype=dtype))
    large = [t.name for t in built.graph.initializer if np.prod(t.dims) >= 100]
    assert large == ["w1", "w2", "w3", "mmbm_decision/null_scores"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    "body",
    [
        "d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, act)",
        "a = Conv<pads=[1,1,1,1]>(x, w4) d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, a)",
        "d = Conv<pads=[1,1,1,1]>(act, w2) a = Conv<pads=[1,1,1,1]>(x, w4) s = Add(a, d)",
        "a = Conv<pads=[1,1,1,1]>(x, w4) q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)"
        " d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(q, d)",
        "q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(act)"
        " a = Conv<pads=[1,1,1,1]>(x, w4) s = Add(q, a)",
    ],
    ids=[
        "identity",
        "projection-first",
        "projection-last",
        "pooled-projection",
        "only-the-projection",
    ],
)
def test_onnx_runtime_fuses_the_original_branch_as_it_fuses_the_original(body, dtype, tmp_path):
    model = residual(dtype, body)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10, dtype=dtype), images(dtype=dtype)
    hardened, built = pair(model, who, sites, bounds, x)
    assert_right(model, hardened, built, who, x)
    session(model, tmp_path / "original")
    session(built, tmp_path / "detector")
    before = onnx.load(tmp_path / "original").graph
    after = onnx.load(tmp_path / "detector").graph
    assert kernels(before, "logits") == kernels(after, "logits/mmbm_original")


def kernels(graph: onnx.GraphProto, name: str) -> Counter[tuple[str, int, int]]:
    """Operators that the tensor comes from, with their inputs and attributes counted."""
    made_by = {output: node for node in graph.node for output in node.output}
    if name not in made_by:  # float16: the widened tensor carries the name
        name = next(output for output in made_by if output.endswith(f"_{name}"))
    elif made_by[name].op_type == "Cast":
        name = made_by[name].input[0]
    found: dict[str, onnx.NodeProto] = {}
    stack = [name]
    while stack:
        node = made_by.get(stack.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node
            stack.extend(node.input)
    return Counter(
        (node.op_type, len(node.input), sum(a.name == "activation" for a in node.attribute))
        for node in found.values()
        if node.op_type != "ReorderOutput"  # moves numbers, computes none
    )


def test_a_tensor_with_one_reader_gets_no_second_one():
    body = "a = Conv<pads=[1,1,1,1]>(x, w4) d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, a)"
    model = residual(body=body)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2))
    _, built = pair(model, interface(10), sites, bounds, images())
    readers = Counter(name for node in built.graph.node for name in node.input)
    assert readers["a"] == readers["c"] == readers["s"] == 1
    assert readers["act"] == 2  # the original's reader, and the first bound


def test_a_tensor_that_is_also_an_output_is_shared():
    body = "a = Conv<pads=[1,1,1,1]>(x, w4) d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, a)"
    model = residual(body=body, outputs="float[N, 10] logits, float[N, 16, 8, 8] a")
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10), images()
    _, built = pair(model, who, sites, bounds, x)
    assert ops(built.graph.node).count("Conv") == 4
    assert np.array_equal(run_named(built, x=x)["a"], run_named(model, x=x)["a"])


def test_what_the_logits_do_not_need_is_not_copied():
    body = "d = Conv<pads=[1,1,1,1]>(act, w2) s = Add(d, act) e = Exp(act)"
    model = residual(body=body, outputs="float[N, 10] logits, float[N, 16, 8, 8] e")
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    _, built = pair(model, interface(10), sites, bounds, images())
    assert ops(built.graph.node).count("Exp") == 1


def test_a_tensor_with_several_readers_is_shared():
    body = "n = Neg(c) d = Conv<pads=[1,1,1,1]>(act, w2) m = Mul(d, c) s = Add(m, n)"
    model = residual(body=body)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    assert ops(built.graph.node).count("Conv") == 3
    assert ops(built.graph.node).count("Neg") == 2
    assert_right(model, hardened, built, who, x)


def test_shape_arithmetic_and_constants_are_shared_or_copied_rightly():
    body = """
        axis = Constant<value = int64[1] {0}>()
        shape = Shape(x)
        n = Gather(shape, axis)
        rest = Constant<value = int64[2] {16, 64}>()
        target = Concat<axis=0>(n, rest)
        flat = Reshape(act, target)
        half = Constant<value = float {0.5}>()
        scaled = Mul(flat, half)
        whole = Shape(act)
        s = Reshape(scaled, whole)
    """
    model = residual(body=body)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    assert ops(built.graph.node).count("Constant") == 3
    assert_right(model, hardened, built, who, x)


def test_a_relu6_before_and_behind_the_first_bound():
    body = "d = Conv<pads=[1,1,1,1]>(act, w2) e = Clip(d, low, high) s = Add(e, act)"
    model = residual(body=body)
    for name, value in (("low", 0), ("high", 6)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    sites = [*relu_sites(model), site("e", 16, kind="Clip", rank=4, upper=6.0)]
    bounds = Bounds(
        {
            "act": np.asarray(0.8, np.float32),
            "e": np.asarray(0.5, np.float32),
            "last": np.full(16, 0.9, np.float32),
        }
    )
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    assert_right(model, hardened, built, who, x)
    limits = [n.input[2] for n in built.graph.node if n.op_type == "Clip"]
    assert limits[0] == "high" and len(set(limits)) == 3


def test_a_first_relu6_is_bounded_for_the_branch_alone():
    model = parse(
        "g (float[N, 3] x) => (float[N, 3] logits) { act = Clip(x, low, high) logits = Neg(act) }",
        low=np.asarray(0, np.float32),
        high=np.asarray(6, np.float32),
    )
    where = site("act", 3, kind="Clip", upper=6.0)
    bounds = Bounds({"act": np.asarray(2, np.float32)})
    who = interface(3)
    x = np.random.default_rng(0).uniform(-2, 9, (400, 3)).astype(np.float32)
    hardened, built = pair(model, who, [where], bounds, x)
    assert_right(model, hardened, built, who, x)


SOFTMAX = "probs = Softmax<axis=1>(logits)"
HEADS = {
    "softmax": (SOFTMAX, "float[N, 10] probs", "softmax"),
    "log-softmax": ("probs = LogSoftmax<axis=1>(logits)", "float[N, 10] probs", "log_softmax"),
    "both": (SOFTMAX, "float[N, 10] probs, float[N, 10] logits", "softmax"),
}


@pytest.mark.parametrize("head", HEADS)
def test_outputs_behind_the_logits_are_corrected(head):
    nodes, outputs, kind = HEADS[head]
    model = residual(head=nodes, outputs=outputs)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10, output="probs", logits="logits", head=kind), images()
    hardened, built = pair(model, who, sites, bounds, x)
    answers = assert_right(model, hardened, built, who, x)
    flagged = answers["mmbm_flagged"]
    if kind == "softmax":
        assert np.allclose(answers["probs"].sum(1), 1, atol=1e-5)
    if head == "both":
        shifted = np.exp(answers["logits"] - answers["logits"].max(1, keepdims=True))
        assert np.allclose(answers["probs"], shifted / shifted.sum(1, keepdims=True), atol=1e-5)
        assert (answers["logits"].argmax(1) == answers["mmbm_corrected_class"]).all()
        assert flagged.any()


LABELS = """
    top = ArgMax<axis=1, keepdims=0>(logits)
    column = ArgMax<axis=1, keepdims=1>(logits)
    zero = Constant<value = float {0.0}>()
    positive = Greater(logits, zero)
    small = Cast<to=5>(column)
    cube = Unsqueeze(logits, last_axis)
    features = Neg(f)
"""


def test_every_kind_of_output_behind_the_logits_keeps_type_and_shape():
    outputs = (
        "int64[N] top, float[N, 10] logits, int64[N, 1] column, bool[N, 10] positive,"
        "int16[N, 1] small, float[N, 10, 1] cube, float[N, 16] features"
    )
    model = residual(head=LABELS, outputs=outputs)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([2]), "last_axis"))
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    answers = assert_right(model, hardened, built, who, x)
    assert np.array_equal(answers["top"], answers["mmbm_corrected_class"])
    assert np.array_equal(answers["column"][:, 0], answers["top"])
    assert np.array_equal(answers["small"][:, 0], answers["top"])
    assert np.array_equal(answers["positive"], answers["logits"] > 0)
    assert np.array_equal(answers["cube"][..., 0], answers["logits"])
    # Not derived from the logits: the original's, flagged or not.
    assert np.array_equal(answers["features"], run_named(model, x=x)["features"])


@pytest.mark.parametrize(
    ("head", "output", "message"),
    [
        ("best = ReduceMax<axes=[0], keepdims=0>(logits)", "float[10] best", "'best'.*batch axis"),
        ("best = ReduceMax<keepdims=0>(logits)", "float best", "'best'.*batch axis"),
        ("odd = Cast<to=13>(logits)", "uint64[N, 10] odd", "'odd'.*uint64"),
        ("odd = SequenceConstruct(logits)", "seq(float[N, 10]) odd", "'odd'.*no tensor"),
    ],
)
def test_an_output_that_cannot_be_corrected_row_by_row_is_refused(head, output, message):
    model = residual(head=head, outputs=f"float[N, 10] logits, {output}")
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2))
    null = fit_null(np.zeros(9, np.float32), 0.5)
    with pytest.raises(RewriteError, match=message):
        build_detector(model, interface(10), sites, bounds, null)


def test_an_interface_output_apart_from_the_logits_is_refused():
    model = residual(head="other = Neg(f)", outputs="float[N, 10] logits, float[N, 16] other")
    sites = relu_sites(model)
    null = fit_null(np.zeros(9, np.float32), 0.5)
    with pytest.raises(RewriteError, match="output 'other' does not depend on the logits"):
        build_detector(
            model,
            interface(10, output="other", logits="logits"),
            sites,
            random_bounds(sites, np.random.default_rng(2)),
            null,
        )


BODY = """
    cond = Constant<value = bool {1}>()
    s = If(cond) <
        then_branch = t () => (float[N, 16, 8, 8] ts) {
            td = Conv<pads=[1,1,1,1]>(act, w2)
            inner = Relu(td)
            ts = Add(inner, act)
        },
        else_branch = e () => (float[N, 16, 8, 8] es) { es = Neg(act) }
    >
"""


@pytest.mark.parametrize("bounded", [("act", "inner", "last"), ("inner",), ("act",)])
def test_a_subgraph_is_copied_with_its_captures_and_its_bounds(bounded):
    model = residual(body=BODY)
    sites = [*relu_sites(model), site("inner", 16, rank=4, scope="If/then_branch")]
    rng = np.random.default_rng(2)
    bounds = random_bounds([s for s in sites if s.tensor in bounded], rng, 0.05, 0.3)
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    assert ops(built.graph.node).count("If") == 2
    assert_right(model, hardened, built, who, x)


def test_local_functions_stay_referenced():
    model = residual(body="d = custom.Twice(act) s = Add(d, act)")
    model.opset_import.add(domain="custom", version=1)
    twice = onnx.helper.make_function(
        "custom",
        "Twice",
        ["a"],
        ["b"],
        [onnx.helper.make_node("Add", ["a", "a"], ["b"])],
        [onnx.helper.make_opsetid("", 17)],
    )
    model.functions.append(twice)
    sites = relu_sites(model)
    sites = [s if s.tensor == "act" else site("last", 16, rank=4) for s in sites]
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    who, x = interface(10), images()
    hardened, built = pair(model, who, sites, bounds, x)
    assert [serialized(f) for f in built.functions] == [serialized(twice)]
    assert ops(built.graph.node).count("Twice") == 2
    assert_right(model, hardened, built, who, x)


def test_every_site_is_bounded_in_the_branch():
    """Removing any one bound changes the branch: a lost bound would be seen."""
    model = residual()
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.1, 0.5)
    null = fit_null(np.zeros(9, np.float32), 0.5)
    who, x = interface(10), images(50)
    every = run_named(build_detector(model, who, sites, bounds, null), x=x)["mmbm_score"]
    for left_out in bounds:
        fewer = Bounds({name: bounds[name] for name in bounds if name != left_out})
        score = run_named(build_detector(model, who, sites, fewer, null), x=x)["mmbm_score"]
        assert not np.allclose(score, every, atol=1e-2)


def test_the_branch_carries_declared_types():
    model = onnx.shape_inference.infer_shapes(residual())
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2))
    _, built = pair(model, interface(10), sites, bounds, images())
    infos = {info.name: info.type for info in built.graph.value_info}
    assert infos["mmbm_bounded/d"] == infos["d"]
    assert infos["mmbm_bounded/act"] == infos["act"]
    assert infos["logits/mmbm_original"] == model.graph.output[0].type
    assert infos["mmbm_bounded/last"].tensor_type.elem_type == TensorProto.FLOAT


@pytest.fixture(scope="module")
def torch_net():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, entry: int, width: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(entry, width, 3, stride, 1, bias=False)
            self.first_norm = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.second_norm = nn.BatchNorm2d(width)
            self.shortcut = (
                nn.Sequential(nn.Conv2d(entry, width, 1, stride, bias=False), nn.BatchNorm2d(width))
                if stride > 1
                else nn.Identity()
            )

        def forward(self, x):
            inner = torch.relu(self.first_norm(self.first(x)))
            return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(8, 8, 1),
        Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize("batch", [None, 4], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript-9", "torchscript-13"])
def test_unflagged_rows_of_an_exported_net_are_the_originals_bits(
    torch_net, exporter, batch, tmp_path
):
    import warnings

    import torch

    path = tmp_path / "net.onnx"
    dynamo = exporter == "dynamo"
    options = (
        {"dynamic_shapes": None if batch else ({0: "N"},)}
        if dynamo
        else {
            "opset_version": int(exporter.split("-")[1]),
            "dynamic_axes": None if batch else {"x": {0: "N"}, "y": {0: "N"}},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_net,
            (torch.randn(batch or 2, 3, 16, 16),),
            path,
            dynamo=dynamo,
            verbose=False,
            input_names=["x"],
            output_names=["y"],
            **options,
        )
    model = onnx.load(path)
    sites = relu_sites(model)
    assert len(sites) == 5
    bounds = random_bounds(sites, np.random.default_rng(0), 0.2, 1.2)
    who = interface(10, output="y", batch=batch)
    rng = np.random.default_rng(1)
    sample = rng.normal(size=(batch or 64, 3, 16, 16)).astype(np.float32)
    start = fit_null(np.zeros(9, np.float32), 0.5)
    scores = run_named(build_detector(model, who, sites, bounds, start), x=sample)["mmbm_score"]
    null = flag_share(scores)
    built = build_detector(model, who, sites, bounds, null)
    check_written(built)
    check_signature(model, built, DETECTOR_OUTPUTS)
    original, detector = session(model), session(built)
    unflagged = 0
    for size in [batch] * 50 if batch else [1] * 30 + [7, 200, 1000]:
        x = rng.normal(size=(size, 3, 16, 16)).astype(np.float32)
        (y,) = original.run(None, {"x": x})
        answer, flagged, *_ = detector.run(None, {"x": x})
        assert np.array_equal(answer[~flagged], y[~flagged])
        assert (answer[flagged].argmax(1) != y[flagged].argmax(1)).all()
        unflagged += int((~flagged).sum())
    assert unflagged > (50 if batch else 300)


def test_the_detectors_file_is_about_as_large_as_the_originals():
    model = residual()
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(
            np.random.default_rng(0).normal(size=(16, 16, 31, 31)).astype(np.float32) / 99, "w2"
        )
    )
    for node in model.graph.node:
        if "w2" in node.input:
            node.attribute[0].ints[:] = [15, 15, 15, 15]
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(2), 0.3, 1.5)
    _, built = pair(model, interface(10), sites, bounds, images(40))
    assert len(serialized(built)) < 1.03 * len(serialized(model))
