"""The executor: names, feeds, transforms, folding, host values, branches, functions, halves."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.errors import ModelError, UnsupportedOperatorError
from mmbm_onnx.execution import registry
from mmbm_onnx.execution.executor import GraphExecutor
from mmbm_onnx.runtime.sessions import Session


def parsed(text: str, *constants: tuple[str, np.ndarray], opset: int = 18) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    for name, value in constants:
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


CHAIN = """
chain (float[N, 3] x) => (float[N, 2] y) {
    hidden = MatMul(x, first)
    act = Relu(hidden)
    y = MatMul(act, second)
}
"""
FIRST = np.array([[1, -1, 2], [0, 1, 1], [2, 0, -1]], np.float32)
SECOND = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def chain() -> GraphExecutor:
    return GraphExecutor(parsed(CHAIN, ("first", FIRST), ("second", SECOND)))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """First outputs of the nodes in the order in which they are run."""
    from mmbm_onnx.execution.steps import Step

    ran: list[str] = []
    call = Step.call

    def recording(self: Step, inputs: list[torch.Tensor | None]) -> object:
        ran.append(self.outputs[0])
        return call(self, inputs)

    monkeypatch.setattr(Step, "call", recording)
    return ran


def test_any_tensor_can_be_asked_for(chain: GraphExecutor) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]])
    result = chain.run({"x": x}, ["y", "act", "hidden", "x", "first"])
    assert result["hidden"].tolist() == (x.numpy() @ FIRST).tolist()
    assert result["act"].tolist() == np.maximum(x.numpy() @ FIRST, 0).tolist()
    assert result["y"].tolist() == (np.maximum(x.numpy() @ FIRST, 0) @ SECOND).tolist()
    assert result["x"].tolist() == x.tolist()
    assert result["first"].tolist() == FIRST.tolist()


def test_any_tensor_can_be_fed_and_what_it_replaces_is_not_run(
    chain: GraphExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = counted(monkeypatch)
    result = chain.run({"act": torch.ones(2, 3)}, ["y"])
    assert result["y"].tolist() == [[9.0, 12.0], [9.0, 12.0]]
    assert ran == ["y"]


def test_only_what_the_outputs_need_is_run(
    chain: GraphExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = counted(monkeypatch)
    chain.run({"x": torch.ones(1, 3)}, ["act"])
    assert ran == ["hidden", "act"]


def test_a_constant_can_be_fed(chain: GraphExecutor) -> None:
    result = chain.run({"x": torch.ones(1, 3), "second": torch.zeros(3, 2)}, ["y"])
    assert result["y"].tolist() == [[0.0, 0.0]]


def test_transforms_change_what_later_nodes_see_and_what_is_returned(chain: GraphExecutor) -> None:
    limit = torch.tensor([0.5, 0.0, 1.0], requires_grad=True)
    result = chain.run(
        {"x": torch.ones(1, 3)},
        ["act", "y"],
        transforms={"act": lambda value: torch.minimum(value, limit)},
    )
    assert result["act"].tolist() == [[0.5, 0.0, 1.0]]
    assert result["y"].tolist() == [[5.5, 7.0]]
    result["y"].sum().backward()
    assert limit.grad is not None
    assert limit.grad[0] == 3.0
    assert limit.grad[2] == 11.0


def test_transforms_apply_to_fed_tensors_too(chain: GraphExecutor) -> None:
    result = chain.run(
        {"act": torch.ones(1, 3)}, ["y"], transforms={"act": lambda value: value * 2}
    )
    assert result["y"].tolist() == [[18.0, 24.0]]


def test_gradients_reach_any_feed_and_never_a_weight(chain: GraphExecutor) -> None:
    act = torch.ones(1, 3, requires_grad=True)
    chain.run({"act": act}, ["y"])["y"].sum().backward()
    assert act.grad is not None
    assert act.grad.tolist() == [[3.0, 7.0, 11.0]]
    assert not chain.run({}, ["first"])["first"].requires_grad


@pytest.mark.parametrize("what", ["feeds", "outputs", "transforms"])
def test_unknown_names_are_refused(chain: GraphExecutor, what: str) -> None:
    feeds, outputs, transforms = {"x": torch.ones(1, 3)}, ["y"], {}
    if what == "feeds":
        feeds["no such"] = torch.ones(1)
    elif what == "outputs":
        outputs.append("no such")
    else:
        transforms["no such"] = torch.neg
    with pytest.raises(ModelError, match="'no such'"):
        chain.run(feeds, outputs, transforms=transforms)


def test_a_missing_feed_is_named(chain: GraphExecutor) -> None:
    with pytest.raises(ModelError, match="tensor 'x' is needed"):
        chain.run({}, ["y"])


def test_a_failing_node_is_named(chain: GraphExecutor) -> None:
    with pytest.raises(ModelError, match=r"MatMul node \(output 'hidden'\) failed"):
        chain.run({"x": torch.ones(1, 4)}, ["y"])


def test_the_model_is_not_changed() -> None:
    model = parsed(CHAIN, ("first", FIRST), ("second", SECOND))
    before = model.SerializeToString(deterministic=True)
    GraphExecutor(model).run({"x": torch.ones(1, 3)}, ["y"])
    assert model.SerializeToString(deterministic=True) == before


FOLDED = """
folded (float[N, 3] x) => (float[N, 3] y) {
    doubled = Add(weight, weight)
    negative = Neg(doubled)
    y = Mul(x, negative)
}
"""


def test_constants_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = GraphExecutor(parsed(FOLDED, ("weight", np.ones(3, np.float32))))
    ran = counted(monkeypatch)
    assert executor.run({"x": torch.ones(1, 3)}, ["y"])["y"].tolist() == [[-2.0] * 3]
    assert ran == ["y"]


def test_feeding_a_constant_recomputes_what_was_folded() -> None:
    executor = GraphExecutor(parsed(FOLDED, ("weight", np.ones(3, np.float32))))
    x = torch.ones(1, 3)
    assert executor.run({"x": x, "weight": torch.full((3,), 5.0)}, ["y"])["y"][0, 0] == -10
    assert executor.run({"x": x, "doubled": torch.full((3,), 5.0)}, ["y"])["y"][0, 0] == -5
    assert executor.run({"x": x}, ["y"])["y"][0, 0] == -2


def test_transforming_a_constant_recomputes_what_was_folded() -> None:
    executor = GraphExecutor(parsed(FOLDED, ("weight", np.ones(3, np.float32))))
    x = torch.ones(1, 3)
    for name, expected in (("weight", -20.0), ("doubled", -20.0), ("negative", -20.0)):
        result = executor.run({"x": x}, ["y"], transforms={name: lambda value: value * 10})
        assert result["y"][0, 0] == expected


SHAPES = """
shapes (float[N, 4, 3] x) => (float[N, 12] y) {
    shape = Shape(x)
    n = Gather<axis = 0>(shape, zero)
    n1 = Unsqueeze(n, axes)
    target = Concat<axis = 0>(n1, rest)
    flat = Reshape(x, target)
    bias = Expand(one, target12)
    y = Add(flat, bias)
}
"""
SHAPE_CONSTANTS = (
    ("zero", np.array(0, np.int64)),
    ("axes", np.array([0], np.int64)),
    ("rest", np.array([-1], np.int64)),
    ("one", np.ones(1, np.float32)),
    ("target12", np.array([12], np.int64)),
)


def test_shapes_are_never_read_from_the_device() -> None:
    # A meta tensor has no contents: reading any of its values would fail.
    executor = GraphExecutor(parsed(SHAPES, *SHAPE_CONSTANTS), device="meta")
    result = executor.run({"x": torch.empty(5, 4, 3)}, ["y", "target"])
    assert result["y"].device.type == "meta"
    assert result["y"].shape == (5, 12)
    assert result["target"].device.type == "cpu"
    assert result["target"].tolist() == [5, -1]


def test_shapes_follow_each_batch() -> None:
    executor = GraphExecutor(parsed(SHAPES, *SHAPE_CONSTANTS))
    for batch in (1, 5):
        assert executor.run({"x": torch.ones(batch, 4, 3)}, ["y"])["y"].shape == (batch, 12)


def test_blank_and_repeated_node_names_do_no_harm() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Neg", ["a"], ["b"], name="same"),
        helper.make_node("Abs", ["b"], ["c"], name=""),
        helper.make_node("Sqrt", ["c"], ["y"], name=""),
    ]
    graph = helper.make_graph(
        nodes,
        "names",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    executor = GraphExecutor(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert executor.run({"x": torch.tensor([-4.0, 9.0])}, ["y"])["y"].tolist() == [0.0, 3.0]


BRANCHES = """
branches (float[N, 2] x, bool choose) => (float[N, 2] y) {
    scaled = Mul(x, two)
    out = If (choose) <
        then_branch = yes () => (float[N, 2] a) { a1 = Relu(scaled) a = Neg(a1) },
        else_branch = no () => (float[N, 2] b) { b = Relu(x) }
    >
    y = Add(out, x)
}
"""


@pytest.fixture
def branches() -> GraphExecutor:
    return GraphExecutor(parsed(BRANCHES, ("two", np.array(2, np.float32))))


def test_if_runs_the_branch_that_its_condition_names(branches: GraphExecutor) -> None:
    x = torch.tensor([[1.0, -1.0]])
    for choose, expected in ((True, [[-1.0, -1.0]]), (False, [[2.0, -1.0]])):
        result = branches.run({"x": x, "choose": torch.tensor(choose)}, ["y"])
        assert result["y"].tolist() == expected


def test_tensors_inside_branches_have_names_too(branches: GraphExecutor) -> None:
    x = torch.tensor([[1.0, -1.0]], requires_grad=True)
    feeds = {"x": x, "choose": torch.tensor(True)}
    result = branches.run(feeds, ["y", "a1"], transforms={"a1": lambda value: value.clamp(max=0.5)})
    assert result["a1"].tolist() == [[0.5, 0.0]]
    assert result["y"].tolist() == [[0.5, -1.0]]
    fed = branches.run({**feeds, "a1": torch.full((1, 2), 7.0)}, ["y"])
    assert fed["y"].tolist() == [[-6.0, -8.0]]


def test_a_tensor_of_the_branch_not_taken_has_no_value(branches: GraphExecutor) -> None:
    with pytest.raises(ModelError, match=r"'a1'.*branch"):
        branches.run({"x": torch.ones(1, 2), "choose": torch.tensor(False)}, ["a1"])


def test_an_optional_tensor_of_the_branch_not_taken_is_left_out(branches: GraphExecutor) -> None:
    feeds = {"x": torch.ones(1, 2), "choose": torch.tensor(False)}
    found = branches.run(feeds, ["y", "a1", "scaled"], optional=["a1", "scaled"])
    assert set(found) == {"y", "scaled"}
    feeds["choose"] = torch.tensor(True)
    assert set(branches.run(feeds, ["y", "a1"], optional=["a1"])) == {"y", "a1"}


LOOP = """
loop (float[N, 2] x, int64 n, bool go) => (float[N, 2] y, float[K, N, 2] all) {
    half = Constant <value_float = 0.5> () limit = Constant <value_float = 100.0> ()
    y, all = Loop (n, go, x) <body = body (int64 i, bool c, float[N, 2] v) =>
        (bool more, float[N, 2] w, float[N, 2] seen) {
        j = Cast <to = 1> (i) s = Add (v, j) r = Relu (s) w = Add (r, r) seen = Mul (w, half)
        top = ReduceMax <keepdims = 0> (w) more = Less (top, limit)
    }>
}
"""


@pytest.fixture
def loop() -> GraphExecutor:
    return GraphExecutor(parsed(LOOP))


@pytest.mark.parametrize(("count", "go"), [(3, True), (1, True), (50, True), (3, False), (0, True)])
def test_a_loop_runs_as_in_onnx_runtime(loop: GraphExecutor, count: int, go: bool) -> None:
    x = np.array([[1.0, -3.0], [2.0, 0.5], [-9.0, 0.0]], np.float32)
    feeds = {"x": x, "n": np.array(count), "go": np.array(go)}
    names = ["y", "all"] if count and go else ["y"]
    proto = parsed(LOOP)
    if names == ["y"]:
        del proto.graph.output[1]
        proto.graph.node[2].output[1] = ""
        del proto.graph.node[2].output[1]
        body = proto.graph.node[2].attribute[0].g
        del body.output[2]
    ours = GraphExecutor(proto).run({k: torch.from_numpy(v) for k, v in feeds.items()}, names)
    theirs = Session(proto, threads=1).run(names, feeds)
    for name, expected in zip(names, theirs, strict=True):
        np.testing.assert_allclose(ours[name].numpy(), expected, rtol=1e-6)


def test_gradients_flow_through_all_rounds(loop: GraphExecutor) -> None:
    x = torch.tensor([[1.0, -3.0]], requires_grad=True)
    feeds = {"x": x, "n": torch.tensor(3), "go": torch.tensor(True)}
    loop.run(feeds, ["y"])["y"].sum().backward()
    # Thrice doubled; the second value is zero in the first round, so nothing of it is left.
    assert x.grad is not None and x.grad.tolist() == [[8.0, 0.0]]


def test_tensors_of_a_body_come_one_round_after_the_other(loop: GraphExecutor) -> None:
    feeds = {"x": torch.ones(2, 2), "n": torch.tensor(3), "go": torch.tensor(True)}
    transforms = {"r": lambda value: value.clamp_max(2.5)}
    found = loop.run(feeds, ["y", "r"], transforms=transforms)
    assert found["r"].tolist() == [[1.0, 1.0]] * 2 + [[2.5, 2.5]] * 4
    assert found["y"].tolist() == [[5.0, 5.0]] * 2


def test_a_body_that_is_not_run_has_no_tensors(loop: GraphExecutor) -> None:
    proto = parsed(LOOP)
    feeds = {"x": torch.ones(2, 2), "n": torch.tensor(0), "go": torch.tensor(True)}
    with pytest.raises(UnsupportedOperatorError, match=r"Loop node.*runs no round"):
        GraphExecutor(proto).run(feeds, ["all"])


def test_a_loop_without_end_is_refused() -> None:
    model = parsed(
        """
        loop (float[2] x) => (float[2] y) {
            y = Loop (, , x) <body = body (int64 i, bool c, float[2] v) => (bool d, float[2] w) {
                d = Identity (c) w = Identity (v)
            }>
        }
        """
    )
    with pytest.raises(UnsupportedOperatorError, match=r"Loop node.*more than 10000 rounds in all"):
        GraphExecutor(model).run({"x": torch.ones(2)}, ["y"])


def test_loops_in_loops_count_together() -> None:
    model = parsed(
        """
        loops (float[2] x) => (float[2] y) {
            n = Constant <value_int = 150> () on = Constant <value = bool {1}> ()
            y = Loop (n, on, x) <body = body (int64 i, bool c, float[2] v) => (bool d, float[2] w) {
                d = Identity (c)
                w = Loop (n, on, v) <body = in (int64 j, bool e, float[2] a) => (bool f, float[2] b)
                    { f = Identity (e) b = Identity (a) }>
            }>
        }
        """
    )
    with pytest.raises(UnsupportedOperatorError, match="loops run more than 10000 rounds in all"):
        GraphExecutor(model).run({"x": torch.ones(2)}, ["y"])


FUNCTIONS = """
<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
functions (float[N, 3] x) => (float[N, 3] y) {
    a = local.twice <gain = 3.0> (x)
    wide = MatMul(a, weight)
    y = Relu(wide)
}
<domain: "local", opset_import: ["" : 18, "local" : 1]>
twice <gain: float = 1.0> (v) => (w) {
    g = Constant <value_float: float = @gain> ()
    s = local.scaled (v, g)
    w = local.scaled (s, g)
}
<domain: "local", opset_import: ["" : 18]>
scaled (v, g) => (w) { w = Mul(v, g) }
"""


def test_local_functions_are_inlined_and_large_weights_survive() -> None:
    model = onnx.parser.parse_model(FUNCTIONS)
    weight = np.eye(3, 600, dtype=np.float32)
    assert weight.size > 1024
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    executor = GraphExecutor(model)
    x = torch.tensor([[1.0, -1.0, 2.0]])
    result = executor.run({"x": x}, ["y", "a"])
    assert result["a"].tolist() == [[9.0, -9.0, 18.0]]
    assert result["y"].shape == (1, 600)
    assert result["y"][0, :3].tolist() == [9.0, 0.0, 18.0]


def test_standard_operators_without_implementation_run_by_their_function_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.linspace(-3, 3, 12).reshape(2, 6)
    model = parsed(
        "body (float[N, 6] x) => (float[N, 6] y) { s = Selu(x)  c = Celu <alpha = 2.0> (s) "
        "y = HardSigmoid(c) }"
    )
    direct = GraphExecutor(model).run({"x": x}, ["y"])["y"]
    for name in ("Selu", "Celu", "HardSigmoid"):
        monkeypatch.delitem(registry._REGISTRY, ("", name))
    expanded = GraphExecutor(model).run({"x": x}, ["y", "s"])
    torch.testing.assert_close(expanded["y"], direct)
    torch.testing.assert_close(expanded["s"], torch.selu(x))


def test_unknown_operators_are_refused_only_if_needed() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 18, "strange" : 1]>
        odd (float[2] x) => (float[2] y, float[2] z) { y = Relu(x)  z = strange.Thing(x) }
        """
    )
    executor = GraphExecutor(model)
    assert executor.run({"x": torch.ones(2)}, ["y"])["y"].tolist() == [1.0, 1.0]
    with pytest.raises(UnsupportedOperatorError, match=r"strange::Thing node .*'z'"):
        executor.run({"x": torch.ones(2)}, ["z"])


def test_an_attribute_that_is_not_read_is_refused_off_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(registry._REGISTRY, ("", "HardSigmoid"))
    registry.operator("HardSigmoid", attributes=("alpha",))(lambda node, x: x * node.get("alpha"))

    def executor(beta: float) -> GraphExecutor:
        node = f"HardSigmoid <alpha = 3.0, beta = {beta}> (x)"
        return GraphExecutor(parsed(f"g (float[2] x) => (float[2] y) {{ y = {node} }}"))

    assert executor(0.5).run({"x": torch.ones(2)}, ["y"])["y"].tolist() == [3.0, 3.0]
    with pytest.raises(UnsupportedOperatorError, match=r"HardSigmoid node .*'y'.*beta=0.25"):
        executor(0.25).run({"x": torch.ones(2)}, ["y"])


def test_random_operators_are_refused() -> None:
    model = parsed("noise (float[2] x) => (float[2] y) { y = RandomNormalLike(x) }")
    with pytest.raises(UnsupportedOperatorError, match="RandomNormalLike node"):
        GraphExecutor(model).run({"x": torch.ones(2)}, ["y"])


HALF = """
half (float16[N, 2] x) => (float16[N, 2] y) {
    wide = Cast <to = 1> (x)
    narrow = Cast <to = 10> (wide)
    moved = Add(narrow, bias)
    y = Relu(moved)
}
"""


def test_halves_are_computed_in_float32() -> None:
    model = parsed(HALF, ("bias", np.array([1, -1], np.float16)))
    x = np.array([[0.1, 0.2]], np.float16)
    result = GraphExecutor(model).run({"x": torch.from_numpy(x)}, ["y", "narrow", "bias"])
    assert {value.dtype for value in result.values()} == {torch.float32}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"x": x})[0].astype(np.float32)
    np.testing.assert_allclose(result["y"].numpy(), expected, rtol=1e-3)


def test_halves_can_stay_halves() -> None:
    model = parsed(HALF, ("bias", np.array([1, -1], np.float16)))
    x = torch.ones(1, 2, dtype=torch.float16)
    executor = GraphExecutor(model, promote_half=False)
    assert executor.run({"x": x}, ["y"])["y"].dtype == torch.float16


def test_bfloat16_constants_are_read() -> None:
    model = parsed("b (float[2] x) => (float[2] y) { c = Cast <to = 1> (k)  y = Add(x, c) }")
    model.graph.initializer.append(helper.make_tensor("k", TensorProto.BFLOAT16, [2], [1.5, -2.0]))
    for promote in (True, False):
        executor = GraphExecutor(model, promote_half=promote)
        assert executor.run({"x": torch.zeros(2)}, ["y"])["y"].tolist() == [1.5, -2.0]


def test_constants_torch_cannot_hold_are_refused_only_if_needed() -> None:
    model = parsed("s (float[2] x) => (float[2] y) { y = Relu(x)  z = Identity(words) }")
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"word"]))
    executor = GraphExecutor(model)
    assert executor.run({"x": torch.ones(2)}, ["y"])["y"].tolist() == [1.0, 1.0]
    with pytest.raises(UnsupportedOperatorError, match="'words'"):
        executor.run({"x": torch.ones(2)}, ["z"])


def test_values_are_dropped_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmbm_onnx.execution.program import Scope

    alive: list[int] = []
    value = Scope.value

    def counting(self: Scope, name: str) -> torch.Tensor:
        alive.append(len(self.values))
        return value(self, name)

    monkeypatch.setattr(Scope, "value", counting)
    nodes = "".join(f"t{i + 1} = Neg(t{i}) " for i in range(20))
    model = parsed(f"long (float[2] t0) => (float[2] t20) {{ {nodes} }}")
    GraphExecutor(model).run({"t0": torch.ones(2)}, ["t20"])
    assert max(alive) == 1


def test_an_executor_made_in_inference_mode_is_still_differentiable() -> None:
    with torch.inference_mode():
        executor = GraphExecutor(parsed(CHAIN, ("first", FIRST), ("second", SECOND)))
        executor.run({"x": torch.ones(1, 3)}, ["y"])
    x = torch.ones(1, 3, requires_grad=True)
    executor.run({"x": x}, ["y"])["y"].sum().backward()
    assert x.grad is not None


def test_runs_under_vmap() -> None:
    executor = GraphExecutor(parsed(CHAIN, ("first", FIRST), ("second", SECOND)))
    x = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0))

    def one(sample: torch.Tensor) -> torch.Tensor:
        return executor.run({"x": sample}, ["y"])["y"]

    mapped = torch.func.vmap(one)(x)
    torch.testing.assert_close(mapped, torch.stack([one(sample) for sample in x]))
