"""Small models, each with one trait that files from the last years have; built when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

CLASSES = 3
_RNG = np.random.default_rng


@dataclass(frozen=True)
class Trait:
    """A model and what is known of it.

    Attributes:
        build: Makes the model.
        shape: Of one input.
        sites: How many activations take a bound.
        uncovered: How many are listed without one.
        logits: Name of the logits, where they have to be named.
        dtype: Of the input.
        below: Of an integer input, what all of them are less than.
        tolerance: Of the hardened graph against torch, relative to the largest logit.
        folded: Bounds of how many activations can be folded into weights; None for all.
    """

    build: Callable[[], onnx.ModelProto]
    shape: tuple[int, ...] = (2, 6, 6)
    sites: int = 2
    uncovered: int = 0
    logits: str | None = None
    dtype: Any = np.float32
    below: int | None = None
    tolerance: float = 1e-4
    folded: int | None = None

    def samples(self, count: int) -> np.ndarray:
        """Random ones, ``(count, *shape)``."""
        rng, shape = np.random.default_rng(0), (count, *self.shape)
        if self.below is not None:
            return rng.integers(0, self.below, shape).astype(self.dtype)
        return rng.normal(size=shape).astype(self.dtype)


TRAITS: dict[str, Trait] = {}


def trait(name: str, **known: Any) -> Callable[[Callable[[], onnx.ModelProto]], Any]:
    def note(build: Callable[[], onnx.ModelProto]) -> Any:
        TRAITS[name] = Trait(build, **known)
        return build

    return note


def weight(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> np.ndarray:
    values = _RNG(seed).normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    return values.astype(dtype)


WEIGHTS = {
    "w1": weight((5, 2, 3, 3), 1),
    "w2": weight((7, 5, 3, 3), 2),
    "w3": weight((CLASSES, 7), 3).T.copy(),
}
SINGLE = WEIGHTS["w3"][:, 2:] - WEIGHTS["w3"][:, 1:2]
CONVOLUTIONAL = """
    c1 = Conv <pads = [1, 1, 1, 1]> ({x}, w1)
    r1 = Relu (c1)
    c2 = Conv (r1, w2)
    r2 = Relu (c2)
    p = GlobalAveragePool (r2)
    f = Flatten (p)
    logits = MatMul (f, w3)
"""


def model(
    body: str,
    *,
    inputs: str = "float[N, 2, 6, 6] x",
    outputs: str = f"float[N, {CLASSES}] logits",
    opset: int = 17,
    ir: int = 8,
    weights: dict[str, np.ndarray] | None = None,
    functions: str = "",
    domains: str = "",
    given: str = "",
) -> onnx.ModelProto:
    """A model from the text of its nodes; ``weights`` become initializers."""
    proto = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]> '
        f"net ({inputs}) => ({outputs}) {given} {{ {body} }} {functions}"
    )
    used = WEIGHTS if weights is None else weights
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in used.items())
    return proto


def plain(**options: Any) -> onnx.ModelProto:
    return model(CONVOLUTIONAL.format(x="x"), **options)


@trait("initializers that are inputs, IR 3", folded=0)
def ir_3() -> onnx.ModelProto:
    proto = plain(opset=9, ir=3)
    for name, value in WEIGHTS.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    return proto


@trait("weights in Constant nodes")
def constants() -> onnx.ModelProto:
    proto = plain(weights={})
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in WEIGHTS.items()
    ]
    return with_nodes(proto, [*nodes, *proto.graph.node])


@trait("weights out of ConstantOfShape chains")
def chains() -> onnx.ModelProto:
    chain = """
        shape = Constant <value_ints = [5, 2, 3, 3]> ()
        ones = ConstantOfShape <value = float[1] {1.0}> (shape)
        two = Constant <value_float = 2.0> ()
        ninth = Constant <value_float = 0.11> ()
        twos = Mul (ones, two)
        halved = Mul (twos, ninth)
        w1 = Mul (halved, signs)
    """
    signs = np.sign(WEIGHTS["w1"])
    weights = {"signs": signs, "w2": WEIGHTS["w2"], "w3": WEIGHTS["w3"]}
    return model(chain + CONVOLUTIONAL.format(x="x"), weights=weights)


@trait("weights behind Identity")
def identities() -> onnx.ModelProto:
    weights = {f"{name}_kept": value for name, value in WEIGHTS.items()}
    behind = "\n".join(f"{name} = Identity ({name}_kept)" for name in WEIGHTS)
    return model(behind + CONVOLUTIONAL.format(x="x"), weights=weights)


def repeated() -> onnx.ModelProto:
    """Not a trait: ONNX Runtime does not load it."""
    proto = plain()
    for node in proto.graph.node:
        node.name = "layer"
    return proto


@trait("BatchNormalization that is not folded")
def normalised() -> onnx.ModelProto:
    body = CONVOLUTIONAL.format(x="x").replace("Relu (c1)", "Relu (n1)")
    body = body.replace("r1 =", "n1 = BatchNormalization (c1, scale, bias, mean, var) r1 =")
    norm = {
        "scale": np.linspace(0.5, 2, 5),
        "bias": np.linspace(-1, 1, 5),
        "mean": np.linspace(0, 0.2, 5),
        "var": np.linspace(0.5, 1.5, 5),
    }
    weights = {**WEIGHTS, **{name: value.astype(np.float32) for name, value in norm.items()}}
    return model(body, weights=weights)


@trait("Relus in the branches of an If", folded=1, sites=3)
def branches() -> onnx.ModelProto:
    body = """
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
        m = ReduceMean <keepdims = 0> (c1)
        zero = Constant <value_float = -100.0> ()
        up = Greater (m, zero)
        r1 = If (up) <
            then_branch = t () => (a) { a = Relu (c1) },
            else_branch = e () => (b) { n = Neg (c1) b = Relu (n) }
        >
        c2 = Conv (r1, w2)
        r2 = Relu (c2)
        p = GlobalAveragePool (r2)
        f = Flatten (p)
        logits = MatMul (f, w3)
    """
    return model(body)


@trait("Relus in a local function that is called twice")
def function() -> onnx.ModelProto:
    body = CONVOLUTIONAL.format(x="x")
    body = body.replace("Relu (c1)", "own.act (c1)").replace("Relu (c2)", "own.act (c2)")
    text = '<domain: "own", opset_import: ["" : 17]> act (v) => (w) { w = Relu (v) }'
    return model(body, functions=text, domains=', "own" : 1')


@trait("channels last, as TensorFlow has them", shape=(6, 6, 2))
def channels_last() -> onnx.ModelProto:
    first = "xt = Transpose <perm = [0, 3, 1, 2]> (x)"
    return model(first + CONVOLUTIONAL.format(x="xt"), inputs="float[N, 6, 6, 2] x")


@trait("channels last inside, MatMul on the last axis", shape=(6, 6, 2))
def dense_channels_last() -> onnx.ModelProto:
    body = """
        d1 = MatMul (x, w1) r1 = Relu (d1)
        d2 = MatMul (r1, w2) r2 = Relu (d2)
        m = ReduceMean <axes = [1, 2], keepdims = 0> (r2)
        logits = MatMul (m, w3)
    """
    weights = {"w1": weight((2, 5), 1), "w2": weight((5, 7), 2), "w3": WEIGHTS["w3"]}
    return model(body, inputs="float[N, 6, 6, 2] x", weights=weights)


def head(text: str, output: str = f"float[N, {CLASSES}] y", **options: Any) -> onnx.ModelProto:
    return model(CONVOLUTIONAL.format(x="x") + text, outputs=output, **options)


@trait("a softmax head")
def softmax() -> onnx.ModelProto:
    return head("y = Softmax (logits)")


@trait("a softmax head of opset 9")
def old_softmax() -> onnx.ModelProto:
    return head("y = Softmax (logits)", opset=9)


@trait("a softmax head that is written out")
def written_softmax() -> onnx.ModelProto:
    return head(
        """
        shape = Shape (logits) column = Constant <value_ints = [-1, 1]> ()
        last = Constant <value_ints = [-1]> ()
        most = ReduceMax <axes = [-1], keepdims = 0> (logits) mc = Reshape (most, column)
        mb = Expand (mc, shape) d = Sub (logits, mb) e = Exp (d)
        sum = ReduceSum <keepdims = 0> (e, last) sc = Reshape (sum, column)
        sb = Expand (sc, shape) y = Div (e, sb)
        """
    )


FULLY_CONVOLUTIONAL = """
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
    r1 = Relu (c1)
    c2 = Conv (r1, w4)
    r2 = Relu (c2)
    scores = GlobalAveragePool (r2)
    {}
"""
SPREAD = {**WEIGHTS, "w4": weight((CLASSES, 5, 3, 3), 4)}


@trait("scores per pixel, averaged, softmax over channels", folded=1)
def spread() -> onnx.ModelProto:
    body = FULLY_CONVOLUTIONAL.format("y = Softmax <axis = 1> (scores)")
    return model(body, outputs=f"float[N, {CLASSES}, 1, 1] y", weights=SPREAD)


@trait("logits of four axes, opset 9", folded=1)
def spread_logits() -> onnx.ModelProto:
    body = FULLY_CONVOLUTIONAL.format("y = Identity (scores)")
    return model(body, outputs=f"float[N, {CLASSES}, 1, 1] y", weights=SPREAD, opset=9)


@trait("a softmax of four axes that is flattened", folded=1)
def flattened() -> onnx.ModelProto:
    body = FULLY_CONVOLUTIONAL.format("p = Softmax (scores) y = Flatten (p)")
    return model(body, outputs=f"float[N, {CLASSES}] y", weights=SPREAD, opset=12)


@trait("a log-softmax head")
def log_softmax() -> onnx.ModelProto:
    return head("y = LogSoftmax (logits)")


@trait("two logits")
def two_logits() -> onnx.ModelProto:
    return plain(outputs="float[N, 2] logits", weights={**WEIGHTS, "w3": WEIGHTS["w3"][:, :2]})


@trait("a single logit behind a sigmoid", uncovered=1)
def one_logit() -> onnx.ModelProto:
    weights = {**WEIGHTS, "w3": SINGLE}
    return head("y = Sigmoid (logits)", "float[N, 1] y", weights=weights)


@trait("a single logit that is named", logits="logits")
def bare_logit() -> onnx.ModelProto:
    return plain(outputs="float[N, 1] logits", weights={**WEIGHTS, "w3": SINGLE})


@trait("features and classes beside the logits", folded=1)
def several_outputs() -> onnx.ModelProto:
    outputs = f"float[N, 7, 1, 1] p, float[N, {CLASSES}] logits, int64[N] k"
    return head("k = ArgMax <axis = 1, keepdims = 0> (logits)", outputs)


@trait("an activation that is an output", folded=1)
def output_activation() -> onnx.ModelProto:
    return plain(outputs=f"float[N, {CLASSES}] logits, float[N, 7, 4, 4] r2")


@trait("a fixed batch of one")
def batch_of_one() -> onnx.ModelProto:
    return plain(inputs="float[1, 2, 6, 6] x", outputs=f"float[1, {CLASSES}] logits")


@trait("a fixed batch of four")
def batch_of_four() -> onnx.ModelProto:
    return plain(inputs="float[4, 2, 6, 6] x", outputs=f"float[4, {CLASSES}] logits")


@trait("a batch axis without a name")
def nameless_batch() -> onnx.ModelProto:
    proto = plain()
    for info in (proto.graph.input[0], proto.graph.output[0]):
        info.type.tensor_type.shape.dim[0].Clear()
    return proto


def of_type(kind: str, dtype: Any) -> onnx.ModelProto:
    weights = {name: value.astype(dtype) for name, value in WEIGHTS.items()}
    return plain(
        inputs=f"{kind}[N, 2, 6, 6] x", outputs=f"{kind}[N, {CLASSES}] logits", weights=weights
    )


@trait("float16 throughout", folded=0, dtype=np.float16, tolerance=2e-2)
def halves() -> onnx.ModelProto:
    return of_type("float16", np.float16)


@trait("float16 within float32", folded=0, tolerance=2e-2)
def halves_inside() -> onnx.ModelProto:
    body = "x16 = Cast <to = 10> (x)" + CONVOLUTIONAL.format(x="x16")
    body = body.replace("logits =", "l16 =") + "logits = Cast <to = 1> (l16)"
    weights = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    return model(body, weights=weights)


@trait("float64 throughout", folded=0, dtype=np.float64, shape=(6,))
def doubles() -> onnx.ModelProto:
    body = """
        a = MatMul (x, w1) r1 = Relu (a)
        b = MatMul (r1, w2) r2 = Relu (b)
        logits = MatMul (r2, w3)
    """
    weights = {
        "w1": weight((6, 8), 1, np.float64),
        "w2": weight((8, 8), 2, np.float64),
        "w3": weight((8, CLASSES), 3, np.float64),
    }
    return model(
        body, inputs="double[N, 6] x", outputs=f"double[N, {CLASSES}] logits", weights=weights
    )


@trait("a perceptron by Gemm", shape=(6,))
def perceptron() -> onnx.ModelProto:
    body = """
        a = Gemm <transB = 1> (x, w1, b1) r1 = Relu (a)
        b = Gemm <transB = 1, alpha = 0.5> (r1, w2) r2 = Relu (b)
        logits = Gemm (r2, w3)
    """
    weights = {
        "w1": weight((8, 6), 1),
        "b1": weight((8,), 4),
        "w2": weight((8, 8), 2),
        "w3": weight((8, CLASSES), 3),
    }
    return model(body, inputs="float[N, 6] x", weights=weights)


@trait("signals along one axis", shape=(2, 20))
def one_axis() -> onnx.ModelProto:
    body = """
        c1 = Conv <pads = [1, 1]> (x, w1) r1 = Relu (c1)
        m = MaxPool <kernel_shape = [2], strides = [2]> (r1)
        c2 = Conv (m, w2) r2 = Relu (c2) p = GlobalAveragePool (r2) f = Flatten (p)
        logits = MatMul (f, w3)
    """
    weights = {"w1": weight((5, 2, 3), 1), "w2": weight((7, 5, 3), 2), "w3": WEIGHTS["w3"]}
    return model(body, inputs="float[N, 2, 20] x", weights=weights)


@trait("volumes along three axes", shape=(1, 5, 5, 5))
def three_axes() -> onnx.ModelProto:
    body = """
        c1 = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, w1) r1 = Relu (c1)
        c2 = Conv (r1, w2) r2 = Relu (c2) p = GlobalMaxPool (r2) f = Flatten (p)
        logits = MatMul (f, w3)
    """
    weights = {"w1": weight((5, 1, 3, 3, 3), 1), "w2": weight((7, 5, 3, 3, 3), 2)}
    return model(body, inputs="float[N, 1, 5, 5, 5] x", weights={**weights, "w3": WEIGHTS["w3"]})


@trait("a recurrent network with a ReLU head", shape=(4, 3), sites=1)
def recurrent() -> onnx.ModelProto:
    body = """
        xt = Transpose <perm = [1, 0, 2]> (x)
        y, h, c = LSTM <hidden_size = 6> (xt, w, r)
        last = Squeeze (h, first) a = MatMul (last, w1) r1 = Relu (a) logits = MatMul (r1, w3)
    """
    weights = {
        "w": weight((1, 24, 3), 1),
        "r": weight((1, 24, 6), 2),
        "w1": weight((6, 7), 4),
        "w3": WEIGHTS["w3"],
        "first": np.zeros(1, np.int64),
    }
    return model(body, inputs="float[N, 4, 3] x", weights=weights)


WORDS, LENGTH = 20, 6
TOKENS = f"int64[N, {LENGTH}] x"
TEXT_WEIGHTS = {
    "table": 2 * weight((WORDS, 4), 1) * 4,
    "places": weight((LENGTH, 4), 2),
    "w1": weight((5, 4, 3), 3),
    "w2": weight((7, 5, 2), 4),
    "w3": WEIGHTS["w3"],
    "last": np.asarray([2], np.int64),
}
TEXT = """
    t = Transpose <perm = [0, 2, 1]> ({x})
    c1 = Conv (t, w1) r1 = Relu (c1)
    c2 = Conv (r1, w2) r2 = Relu (c2)
    p = ReduceMean <axes = [2], keepdims = 0> (r2)
    logits = MatMul (p, w3)
"""


def text(before: str, x: str, inputs: str = TOKENS, **options: Any) -> onnx.ModelProto:
    return model(before + TEXT.format(x=x), inputs=inputs, weights=TEXT_WEIGHTS, **options)


@trait("text: tokens that are looked up", shape=(LENGTH,), dtype=np.int64, below=WORDS)
def tokens() -> onnx.ModelProto:
    return text("e = Gather (table, x)", "e")


@trait("text: a fixed batch", shape=(LENGTH,), dtype=np.int32, below=WORDS)
def tokens_in_batches() -> onnx.ModelProto:
    fixed = f"int32[16, {LENGTH}] x"
    return text("e = Gather (table, x)", "e", fixed, outputs=f"float[16, {CLASSES}] logits")


@trait("text: token and position, padding masked", shape=(LENGTH,), dtype=np.int64, below=WORDS)
def masked() -> onnx.ModelProto:
    before = """
        zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
        axis = Constant <value_ints = [-1]> ()
        padding = Equal (x, zero) content = Not (padding) mask = Cast <to = 1> (content)
        shape = Shape (x) length = Gather (shape, one) range = Range (zero, length, one)
        e = Gather (table, x) at = Gather (places, range)
        sum = Add (e, at)
        column = Unsqueeze (mask, axis) kept = Mul (sum, column)
    """
    return text(before, "kept")


@trait("text: two look-ups of the same tokens", shape=(LENGTH,), dtype=np.int64, below=WORDS)
def twice() -> onnx.ModelProto:
    before = """
        one = Constant <value_int = 1> () words = Constant <value_int = 20> ()
        next = Add (x, one) wrapped = Mod (next, words)
        e = Gather (table, x) e2 = Gather (table, wrapped) g = Sin (e2) sum = Sub (e, g)
    """
    return text(before, "sum")


@trait("text: one-hot tokens", shape=(LENGTH,), dtype=np.int64, below=WORDS)
def one_hot() -> onnx.ModelProto:
    before = """
        depth = Constant <value_int = 20> () values = Constant <value_floats = [0.0, 1.0]> ()
        hot = OneHot (x, depth, values) e = MatMul (hot, table)
    """
    return text(before, "e")


@trait("text: one-hot by comparison", shape=(LENGTH,), dtype=np.int32, below=WORDS)
def written_one_hot() -> onnx.ModelProto:
    before = """
        zero = Constant <value_int = 0> () depth = Constant <value_int = 20> ()
        one = Constant <value_int = 1> () long = Range (zero, depth, one)
        words = Cast <to = 6> (long) axis = Constant <value_ints = [-1]> ()
        column = Unsqueeze (x, axis) hit = Equal (column, words) hot = Cast <to = 1> (hit)
        e = MatMul (hot, table)
    """
    return text(before, "e", f"int32[N, {LENGTH}] x")


@trait("images of uint8, cast in the graph", shape=(6, 6, 2), dtype=np.uint8, below=256)
def pixels() -> onnx.ModelProto:
    before = """
        n = Cast <to = 1> (x) m = Constant <value_float = 127.5> () s = Div (n, m)
        v = Transpose <perm = [0, 3, 1, 2]> (s)
    """
    return model(before + CONVOLUTIONAL.format(x="v"), inputs="uint8[N, 6, 6, 2] x")


@trait("a Loop before activations", uncovered=1)
def looped() -> onnx.ModelProto:
    before = """
        n = Constant <value_int = 3> () start = Constant <value = bool {1}> ()
        z = Loop (n, start, x) <body = body (int64 i, bool go, float[N, 2, 6, 6] v) =>
            (bool on, float[N, 2, 6, 6] w) {
            on = Identity (go) r = Relu (v) h = Sin (v) w = Add (r, h)
        }>
    """
    proto = model(before + CONVOLUTIONAL.format(x="z"))
    # What a Loop carries may change its shape, so exporters say what it is.
    proto.graph.value_info.append(helper.make_tensor_value_info("z", 1, ["N", 2, 6, 6]))
    return proto


@trait("TensorFlow's activations, and padding of its own", folded=1, shape=(6, 6, 2))
def tensorflow() -> onnx.ModelProto:
    body = """
        xt = Transpose <perm = [0, 3, 1, 2]> (x)
        padded = Pad (xt, pads)
        c1 = Conv (padded, w1) r1 = Max (c1, zero)
        c2 = Conv (r1, w2) r2 = Clip (c2, zero, six)
        back = Transpose <perm = [0, 2, 3, 1]> (r2)
        p = ReduceMean <axes = [1, 2], keepdims = 0> (back)
        logits = MatMul (p, w3)
    """
    weights = {
        **WEIGHTS,
        "pads": np.asarray([0, 0, 0, 0, 0, 0, 1, 1], np.int64),
        "zero": np.asarray(0, np.float32),
        "six": np.asarray(6, np.float32),
    }
    return model(
        body.replace("lower = Max (c1, zero)", ""), inputs="float[N, 6, 6, 2] x", weights=weights
    )


@trait("Paddle's names and Constants")
def paddle() -> onnx.ModelProto:
    proto = constants()
    names = {name: f"p2o.pd_op.{name}.0" for node in proto.graph.node for name in node.output}
    names.pop("logits")
    for node in proto.graph.node:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = -1  # of any length
    return proto


@trait("scikit-learn's perceptron: labels and probabilities", shape=(6,), sites=1)
def sklearn() -> onnx.ModelProto:
    body = """
        xc = Cast <to = 1> (x) a = MatMul (xc, w1) ab = Add (a, b1) r1 = Relu (ab)
        b = MatMul (r1, w3) scores = Add (b, b3)
        probabilities = Softmax <axis = 1> (scores)
        best = ArgMax <axis = 1, keepdims = 0> (probabilities)
        label = Gather (classes, best)
    """
    weights = {
        "w1": weight((6, 8), 1),
        "b1": weight((8,), 4),
        "w3": weight((8, CLASSES), 3),
        "b3": weight((CLASSES,), 5),
        "classes": np.asarray([10, 20, 30], np.int64),
    }
    outputs = f"int64[N] label, float[N, {CLASSES}] probabilities"
    return model(body, inputs="float[N, 6] x", outputs=outputs, weights=weights)


@trait("squeeze and excitation, gates left alone", sites=3, uncovered=1)
def gates() -> onnx.ModelProto:
    body = """
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1) r1 = Relu (c1)
        s = GlobalAveragePool (r1) d = Conv (s, down) rs = Relu (d) u = Conv (rs, up)
        g = HardSigmoid (u) scaled = Mul (r1, g)
        c2 = Conv (scaled, w2) r2 = Relu (c2) p = GlobalAveragePool (r2) f = Flatten (p)
        logits = MatMul (f, w3)
    """
    weights = {**WEIGHTS, "down": weight((3, 5, 1, 1), 6), "up": weight((5, 3, 1, 1), 7)}
    return model(body, weights=weights)


def with_nodes(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    return proto


NEWEST = min(onnx.defs.onnx_opset_version(), 26)  # what ONNX Runtime takes
for _opset in range(9, NEWEST + 1):
    _ir = 8 if _opset < 19 else 10
    trait(f"opset {_opset}")(lambda opset=_opset, ir=_ir: plain(opset=opset, ir=ir))
