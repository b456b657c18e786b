"""Input, logits, batch axis: found where they can be, refused in one clear line elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from graph_models import classifier, export, parse
from onnx import TensorProto, helper
from torch import nn

from mmbm_onnx.errors import MmbmError, ModelError, OptionError
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.types import Interface

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
LAYER = "float[4,5] w"


def interface(text: str, **names: str) -> Interface:
    return find_interface(parse(HEAD + text), **names)


def ending(body: str, shape: str = "float[N,5] y", weights: str = "", opset: int = 17) -> Interface:
    """Of a model whose tensor l holds five logits."""
    given = f"{LAYER}, {weights}" if weights else LAYER
    return find_interface(
        parse(
            f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[N,4] x) => ({shape}) '
            f"<{given}> {{ l = MatMul (x, w) {body} }}"
        )
    )


def refusal(error: type[MmbmError], text: str, **names: str) -> str:
    with pytest.raises(error) as caught:
        find_interface(parse(HEAD + text), label="net.onnx", **names)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("net.onnx: ")
    return str(caught.value)


def test_a_classifier_is_read_off_and_not_changed() -> None:
    proto = classifier()
    before = proto.SerializeToString()
    assert find_interface(proto) == Interface(
        "x", np.dtype(np.float32), (None, 3, 8, 8), None, "y", "y", 5, "logits"
    )
    assert proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("batch", "expected"), [("N", None), (None, None), (-1, None), (0, None), (1, 1), (7, 7)]
)
def test_batch_axes(batch: object, expected: int | None) -> None:
    proto = classifier()
    for info in (proto.graph.input[0], proto.graph.output[0]):
        dim = info.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, str):
            dim.dim_param = batch
        elif batch is not None:
            dim.dim_value = batch
    found = find_interface(proto)
    assert found.batch == expected
    assert found.input_shape == (expected, 3, 8, 8)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("float16", np.float16), ("float", np.float32), ("double", np.float64)]
)
def test_floating_point_inputs(kind: str, dtype: type) -> None:
    assert interface(f"({kind}[N,4] x) => ({kind}[N,4] y) {{ y = Neg (x) }}").input_dtype == dtype


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64", "bool", "string"])
def test_other_inputs_are_refused(kind: str) -> None:
    text = refusal(ModelError, f"({kind}[N,4] x) => (float[N,4] y) {{ y = Cast <to = 1> (x) }}")
    assert f"input 'x' is {kind.upper()}" in text


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64"])
def test_integers_start_where_they_become_floating_point(kind: str) -> None:
    text = f"({kind}[N,4] x) => (float[N,4] y) {{ e = Cast <to = 1> (x) y = Neg (e) }}"
    found = interface(text)
    assert (found.input_dtype, found.start, found.tokens) == (kind, "e", False)
    assert interface("(float[N,4] x) => (float[N,4] y) { y = Neg (x) }").start is None


def test_sequences_are_refused() -> None:
    text = (
        "(seq(float[N,4]) x) => (float[N,4] y) { i = Constant <value_int = 0> () y = "
        "SequenceAt (x, i) }"
    )
    assert "not a tensor" in refusal(ModelError, text)


@pytest.mark.parametrize("shape", ["float[4] x", "float x", "float[] x"])
def test_an_input_without_a_batch_axis_is_refused(shape: str) -> None:
    proto = parse(HEAD + f"({shape}) => (float[N,4] y) {{ y = Neg (x) }}")
    if shape == "float[] x":
        proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="no batch axis"):
        find_interface(proto)


def test_an_image_without_a_batch_axis_is_refused() -> None:
    text = (
        "(float[3,8,8] x) => (float[1,5] y) <float[4,3,1,1] w, float[4,5] v, int64[1] z = {0}> {"
        " u = Unsqueeze (x, z) c = Conv (u, w) p = GlobalMaxPool (c) f = Flatten (p) y "
        "= MatMul (f, v) }"
    )
    assert "the input holds 3 samples, the output 'y' 1" in refusal(ModelError, text)


def test_weights_that_are_inputs_too_are_no_inputs() -> None:
    proto = classifier()
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    onnx.checker.check_model(proto)
    assert find_interface(proto).input == "x"
    proto.graph.input.insert(0, proto.graph.input.pop())
    assert find_interface(proto, input_name="x").input == "x"


def test_no_input_and_several_inputs_are_refused() -> None:
    two = "(float[N,4] image, float[N,4] mask) => (float[N,4] y) { y = Mul (image, mask) }"
    assert "has 2 inputs (image, mask)" in refusal(OptionError, two)
    assert "besides 'image' the model needs mask" in refusal(ModelError, two, input_name="image")
    none = "() => (float[2,2] y) { y = Constant <value = float[2,2] {1., 2., 3., 4.}> () }"
    assert "no input" in refusal(ModelError, none)


def test_a_wrong_name_gets_a_suggestion() -> None:
    body = "(float[N,4] image) => (float[N,4] scores) { scores = Neg (image) }"
    assert "did you mean 'image'?" in refusal(OptionError, body, input_name="imagge")
    assert "did you mean 'scores'?" in refusal(OptionError, body, logits_name="score")
    assert "did you mean 'scores'?" in refusal(OptionError, body, logits_name="SCORES")
    assert "there are: scores" in refusal(OptionError, body, logits_name="q")
    many = " ".join(f"t{n} = Neg (image)" for n in range(9))
    body = f"(float[N,4,1] image) => (float[N,4] scores) {{ {many} scores = Flatten (image) }}"
    told = refusal(OptionError, body, logits_name="nothing like it")
    assert told.endswith("in the graph; there are: scores"), told  # what has their form
    body = f"(float[N,1,1] image) => (float[N,1] score) {{ {many} score = Flatten (image) }}"
    assert refusal(OptionError, body, logits_name="nothing like it").endswith("there are: score")


def test_logits_are_found_behind_a_softmax() -> None:
    for body, head in (
        ("y = Softmax (l)", "softmax"),
        ("y = Softmax <axis = 1> (l)", "softmax"),
        ("y = Softmax <axis = -1> (l)", "softmax"),
        ("y = LogSoftmax <axis = 1> (l)", "log_softmax"),
        ("s = Softmax (l) y = Identity (s)", "softmax"),
        ("s = Softmax (l) y = Flatten (s)", "softmax"),
        ("s = Softmax (l) y = Reshape (s, t)", "softmax"),
        ("s = LogSoftmax (l) y = Dropout (s)", "log_softmax"),
    ):
        found = ending(body, weights="int64[2] t = {0, 5}")
        assert (found.output, found.logits, found.head, found.classes) == ("y", "l", head, 5), body


EXP = "m = ReduceMax <axes = [1]> (l) s = Sub (l, m) e = Exp (s)"


@pytest.mark.parametrize(
    "body",
    [
        f"{EXP} d = ReduceSum <keepdims = 1> (e, last) y = Div (e, d)",
        "e = Exp (l) d = ReduceSum (e, last) y = Div (e, d)",
        f"{EXP} d = ReduceSum (e, last) r = Reciprocal (d) y = Mul (e, r)",
        f"{EXP} d = ReduceSum (e, last) r = Reciprocal (d) q = Mul (r, e) y = Identity (q)",
        # As jax and tf2onnx write it.
        """
        m = ReduceMax <axes = [-1], keepdims = 0> (l) low = Constant <value_float = -1e30> ()
        f = Max (low, m) r = Reshape (f, column) i = Shape (l) b = Expand (r, i) s = Sub (l, b)
        e = Exp (s) t = ReduceSum <keepdims = 0> (e, last) u = Reshape (t, column)
        v = Expand (u, i) y = Div (e, v)
        """,
    ],
)
def test_logits_are_found_behind_a_softmax_that_is_written_out(body: str) -> None:
    found = ending(body, weights="int64[1] last = {-1}, int64[2] column = {-1, 1}")
    assert (found.output, found.logits, found.head, found.classes) == ("y", "l", "softmax", 5)


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp (l) d = ReduceSum (e, last) y = Div (d, e)",
        "e = Exp (l) n = Neg (l) f = Exp (n) d = ReduceSum (f, last) y = Div (e, d)",
        "e = Exp (l) d = ReduceSum (e, first) y = Div (e, d)",  # over the batch
        "e = Exp (l) d = ReduceMax <axes = [1]> (e) y = Div (e, d)",
        "e = Relu (l) d = ReduceSum (e, last) y = Div (e, d)",
        "y = Mul (l, l)",
    ],
)
def test_what_only_looks_like_a_softmax_is_none(body: str) -> None:
    found = ending(body, weights="int64[1] last = {-1}, int64[1] first = {0}")
    assert (found.logits, found.head) == ("y", "logits")


def test_another_shift_than_by_the_largest_is_a_part_of_the_logits() -> None:
    body = """
        m = ReduceMin <axes = [1]> (l) s = Sub (l, m) e = Exp (s) d = ReduceSum (e, last)
        y = Div (e, d)
    """
    assert ending(body, weights="int64[1] last = {-1}").logits == "s"


def test_a_cast_after_the_softmax_is_looked_through() -> None:
    found = ending("s = Softmax (l) y = Cast <to = 10> (s)", "float16[N,5] y")
    assert (found.output, found.logits, found.head) == ("y", "l", "softmax")


@pytest.mark.parametrize(("opset", "axis"), [(9, ""), (12, ""), (12, "<axis = 1>"), (13, "")])
def test_the_default_axis_of_either_operator_set(opset: int, axis: str) -> None:
    assert ending(f"y = Softmax {axis} (l)", opset=opset).logits == "l"


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_over_the_batch_is_refused(op: str) -> None:
    with pytest.raises(ModelError, match="mixes the samples"):
        ending(f"y = {op} <axis = 0> (l)")


def test_a_softmax_over_positions_is_refused_not_taken_for_logits() -> None:
    text = (
        "(float[N,3,8,8] x) => (float[N,5] y) <float[5,3,1,1] w> {"
        " c = Conv (x, w) s = Softmax <axis = 1> (c) p = GlobalAveragePool (s) y = Flatten (p) }"
    )
    assert interface(text).head == "logits"  # an average of probabilities is none of one softmax
    text = (
        "(float[N,3,8,8] x) => (float[N,320] y) <float[5,3,1,1] w> {"
        " c = Conv (x, w) s = Softmax <axis = 1> (c) y = Flatten (s) }"
    )
    found = refusal(ModelError, text)
    assert "[None, 5, 8, 8]" in found
    assert "flatten its input" in found
    text = (
        "(float[N,4] x) => (float[N,6] y) <float[4,6] w, int64[2] a = {-1, 2}, int64[2] "
        "b = {-1, 6}> {"
        " l = MatMul (x, w) r = Reshape (l, a) s = Softmax (r) y = Reshape (s, b) }"
    )
    assert "2 columns, the output has 6" in refusal(ModelError, text)


def test_logits_may_have_further_axes_of_length_one_and_no_others() -> None:
    text = (
        "(float[N,3,8,8] x) => (float[N,5,{rest}] y) <float[5,3,1,1] w> {{ c = Conv (x, "
        "w) y = {pool} (c) }}"
    )
    pooled = text.format(rest="1,1", pool="GlobalMaxPool")
    assert (interface(pooled).logits, interface(pooled).classes) == ("y", 5)
    assert interface(pooled, logits_name="y").output == "y"
    whole = text.format(rest="8,8", pool="Neg")
    assert "y [None, 5, 8, 8]" in refusal(ModelError, whole)
    assert "logits have shape" in refusal(OptionError, whole, logits_name="y")


@pytest.mark.parametrize("axis", [2, 3, -1])
def test_a_softmax_along_an_axis_of_length_one_is_refused(axis: int) -> None:
    text = (
        "(float[N,3,8,8] x) => (float[N,5,1,1] y) <float[5,3,1,1] w> { c = Conv (x, w) "
        f"p = GlobalAveragePool (c) y = Softmax <axis = {axis}> (p) }}"
    )
    assert "the classes are on axis 1" in refusal(ModelError, text)


def test_probabilities_of_four_axes_and_rows_of_two_are_a_choice() -> None:
    text = (
        "(float[N,3,8,8] x) => (float[N,5,1,1] y, float[N,7] features) <float[5,3,1,1] w, "
        "float[5,7] v> { c = Conv (x, w) p = GlobalAveragePool (c) y = Softmax <axis = 1> (p) "
        "f = Flatten (p) features = MatMul (f, v) }"
    )
    assert "choose by --logits" in refusal(OptionError, text)
    assert interface(text, logits_name="p").output == "y"


def test_probabilities_of_the_same_logits_in_other_axes_are_no_choice() -> None:
    text = (
        "(float[N,4] x) => (float[N,5] y, float[N,5,1,1] s) <float[4,5] w, int64[2] two = {2, 3}> "
        "{ l = MatMul (x, w) u = Unsqueeze (l, two) y = Flatten (u) s = Softmax <axis = 1> (u) }"
    )
    assert (interface(text).output, interface(text).classes) == ("s", 5)
    assert interface(text).logits == "u"
    attention = (
        "(float[N,3,8,8] x) => (float[N,7] y, float[N,5,1,1] a) <float[5,3,1,1] w, "
        "float[5,7] v> { c = Conv (x, w) p = GlobalAveragePool (c) a = Softmax <axis = 1> (p) "
        "m = Mul (c, a) q = GlobalAveragePool (m) f = Flatten (q) y = MatMul (f, v) }"
    )
    assert interface(attention).output == "y"


def test_scores_of_two_axes_go_before_features_of_four() -> None:
    text = (
        "(float[N,3,8,8] x) => (float[N,5,1,1] features, float[N,7] y) <float[5,3,1,1] w, "
        "float[5,7] v> { c = Conv (x, w) features = GlobalAveragePool (c) f = Flatten (features) "
        "y = MatMul (f, v) }"
    )
    assert interface(text).output == "y"


SINGLE = "<float[4,1] w, int64[1] one = {1}, int64[1] flat = {-1}> { z = MatMul (x, w)"


def test_one_score_is_no_classifier_unless_it_is_said_to_be_one() -> None:
    text = f"(float[N,4] x) => (float[N,1] y) {SINGLE} y = Identity (z) }}"
    assert "--logits, the single one of two classes too" in refusal(ModelError, text)
    for name in ("y", "z"):
        found = interface(text, logits_name=name)
        assert (found.output, found.logits, found.classes, found.head) == ("y", name, 2, "logit")
        assert found.single


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("float[N,1] y", "y = Sigmoid (z)"),
        ("float[N] y", "p = Sigmoid (z) y = Squeeze (p, one)"),
        ("float[N] y", "s = Squeeze (z, one) y = Sigmoid (s)"),
        ("float[N] y", "s = Reshape (z, flat) p = Sigmoid (s) y = Identity (p)"),
    ],
)
def test_a_single_logit_is_found_behind_a_sigmoid(shape: str, body: str) -> None:
    found = interface(f"(float[N,4] x) => ({shape}) {SINGLE} {body} }}")
    assert (found.output, found.logits, found.classes, found.head) == ("y", "z", 2, "sigmoid")
    named = interface(f"(float[N,4] x) => ({shape}) {SINGLE} {body} }}", logits_name="z")
    assert named == found


@pytest.mark.parametrize(
    "tail",
    [
        "y = Neg (z)",
        "y = Exp (z)",
        "p = Sigmoid (z) y = Mul (p, w)",
        "t = Add (z, z) y = Sigmoid (t)",
        "p = Sigmoid (z) y = Clip (p)",
    ],
)
def test_an_output_that_is_not_the_single_logit_is_refused(tail: str) -> None:
    text = (
        "(float[N,4] x) => (float[N,1] y) <float[4,1] w4, float[1,1] w> "
        f"{{ z = MatMul (x, w4) {tail} }}"
    )
    assert "nor its Sigmoid" in refusal(ModelError, text, logits_name="z")


def test_a_sigmoid_of_no_column_is_refused() -> None:
    text = (
        "(float[4] x) => (float[4] y) { y = Sigmoid (x) }",
        "(float[N,4] x) => (float[N] y) { s = ReduceSum <keepdims = 0> (x, one) y = Sigmoid (s) }",
    )
    assert "no batch axis" in refusal(ModelError, text[0])
    given = text[1].replace(") {", ") <int64[1] one = {1}> {")
    assert "works on no tensor of shape (batch, 1)" in refusal(ModelError, given)


def test_several_probabilities_by_sigmoid_are_scores_like_any() -> None:
    assert (ending("y = Sigmoid (l)").head, ending("y = Sigmoid (l)").logits) == ("logits", "y")


def test_other_outputs_do_not_confuse() -> None:
    found = ending("y = Identity (l) k = ArgMax <axis = 1> (l)", "int64[N,1] k, float[N,5] y")
    assert found.output == "y"
    found = ending("y = Softmax (l)", "float[N,5] l, float[N,5] y")
    assert (found.output, found.logits) == ("l", "l")
    found = ending("y = Softmax (l)", "float[N,5] y, float[N,5] l")
    assert (found.output, found.logits, found.head) == ("y", "l", "softmax")


def test_several_candidates_need_a_name() -> None:
    text = (
        "(float[N,4] x) => (float[N,5] y, float[N,5] aux) <float[4,5] w, float[4,5] v> {"
        " y = MatMul (x, w) a = MatMul (x, v) aux = Softmax (a) }"
    )
    assert "(y, aux)" in refusal(OptionError, text)
    assert interface(text, logits_name="y").output == "y"
    found = interface(text, logits_name="aux")
    assert (found.output, found.logits, found.head) == ("aux", "a", "softmax")
    assert interface(text, logits_name="a") == found


def test_logits_may_be_named_behind_steps_that_are_not_known() -> None:
    text = (
        "(float[N,4] x) => (float[N,5] y, int64[N,1] k, float[N,4] z) <float[4,5] w> {"
        " h = Relu (x) l = MatMul (h, w) y = Sigmoid (l) k = ArgMax <axis = 1> (l) z = Neg (x) }"
    )
    found = interface(text, logits_name="l")
    assert (found.output, found.logits, found.head, found.classes) == ("y", "l", "logits", 5)
    assert "has 4 columns, the output 'y' 5" in refusal(OptionError, text, logits_name="h")
    assert "not floating point" in refusal(OptionError, text, logits_name="k")


def test_logits_nobody_needs_or_that_need_no_input_are_refused() -> None:
    text = "(float[N,4] x) => (float[N,5] y) <float[4,5] w> { y = MatMul (x, w) u = Neg (x) }"
    assert "no output of the graph depends on 'u'" in refusal(OptionError, text, logits_name="u")
    text = (
        "(float[N,4] x) => (float[1,2] y, float[N,4] z) <float[1,2] k> { y = Neg (k) z = Neg (x) }"
    )
    assert "does not depend on the input" in refusal(ModelError, text, logits_name="y")


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = own.Id (x)", ""),
        ("u = own.Id (x) y = Gemm <transB = 1> (u, w)", "float[5,4] w"),
        ("u = own.Id (x) y = Gemm (u, w)", "float[4,5] w"),
        ("u = own.Id (x) y = MatMul (u, w)", "float[4,5] w"),
        ("u = own.Id (x) m = MatMul (u, w) y = Add (m, b)", "float[4,5] w, float[5] b"),
        ("u = own.Id (x) m = MatMul (u, w) y = Add (b, m)", "float[4,5] w, float[1] b"),
        ("u = own.Id (x) m = MatMul (u, w) y = Identity (m)", "float[4,5] w"),
    ],
)
def test_the_number_of_classes_comes_from_the_weights(body: str, weights: str) -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[N,4] x) => (float[N,C] y) '
        f"<{weights}> {{ {body} }}"
    )
    if weights:
        assert find_interface(proto).classes == 5
    else:
        with pytest.raises(ModelError, match="number of classes"):
            find_interface(proto)


def test_a_broken_declared_type_is_refused_not_raised() -> None:
    proto = classifier()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelError, match="unknown type 99"):
        find_interface(proto)
    proto = classifier()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelError, match="no output"):
        find_interface(proto)


class WithHead(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.last, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(self.last(x.view(x.size(0), -1)))


@pytest.mark.parametrize(("dynamo", "opset"), [(True, None), (False, 9), (False, 17)])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("head", "name"),
    [
        (nn.Identity(), "logits"),
        (nn.Softmax(dim=1), "softmax"),
        (nn.LogSoftmax(dim=-1), "log_softmax"),
    ],
)
def test_what_torch_exports(
    dynamo: bool, opset: int | None, dynamic: bool, head: nn.Module, name: str
) -> None:
    x = torch.randn(2, 3, 8, 8)
    proto = export(WithHead(head), x, dynamo=dynamo, opset=opset, dynamic=dynamic)
    found = find_interface(proto)
    assert found.batch == (None if dynamic else 2)
    assert (found.classes, found.head) == (5, name)
    assert found.input_shape[1:] == (3, 8, 8)
    made_by = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert made_by[found.logits] == "Gemm"
