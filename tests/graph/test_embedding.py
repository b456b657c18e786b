from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.interface import find_interface

PLACES = """
    axis = Constant <value_ints = [1]> () one = Constant <value_int = 1> ()
    zero = Constant <value_int = 0> ()
"""
END = "p = ReduceMean <axes = [1], keepdims = 0> ({}) y = MatMul (p, w)"


def start(body: str, last: str, functions: str = "") -> str | None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> net (int64[N, 6] x) => '
        f"(float[N, 3] y) {{ {PLACES} {body} {END.format(last)} }} {functions}"
    )
    arrays = {"table": np.ones((9, 4)), "other": np.ones((9, 4)), "w": np.ones((4, 3))}
    proto.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()
    )
    return find_interface(proto).start


def test_a_look_up() -> None:
    assert start("e = Gather (table, x) r = Relu (e)", "r") == "e"


def test_a_look_up_behind_what_keeps_integers() -> None:
    body = """
        i = Cast <to = 6> (x) c = Unsqueeze (i, axis) s = Squeeze (c, axis) e = Gather (table, s)
    """
    assert start(body, "e") == "e"


def test_lengths_and_masks_are_no_embedding() -> None:
    body = """
        shape = Shape (x) n = Gather (shape, one) places = Range (zero, n, one)
        at = Gather (other, places)
        padding = Equal (x, zero) content = Not (padding) mask = Cast <to = 1> (content)
        last = Constant <value_ints = [-1]> () column = Unsqueeze (mask, last)
        e = Gather (table, x) sum = Add (e, at) kept = Mul (sum, column)
    """
    assert start(body, "kept") == "e"


def test_a_cast_counts_where_nothing_is_looked_up() -> None:
    cast = """
        m = Cast <to = 1> (x) last = Constant <value_ints = [-1]> () column = Unsqueeze (m, last)
        four = Constant <value_ints = [1, 1, 4]> () wide = Tile (column, four)
    """
    assert start(cast, "wide") == "m"
    assert start(cast + "e = Gather (table, x) kept = Mul (e, wide)", "kept") == "e"


def test_several_look_ups_start_where_they_have_come_together() -> None:
    body = """
        e = Gather (table, x) next = Add (x, one) words = Constant <value_int = 9> ()
        wrapped = Mod (next, words) g = Gather (other, wrapped) t = Sin (g)
        alone = Cos (e) sum = Add (alone, t) r = Relu (sum)
    """
    assert start(body, "r") == "sum"


def test_a_look_up_that_leads_nowhere_does_not_count() -> None:
    assert start("unused = Gather (other, x) e = Gather (table, x) r = Relu (e)", "r") == "e"


def test_a_function_of_another_domain_may_embed() -> None:
    text = '<domain: "own", opset_import: ["" : 17]> look (t, i) => (e) { e = Gather (t, i) }'
    assert start("f = own.look (table, x) r = Relu (f)", "r", text) == "f"


ONE_HOT = """
    words = Constant <value_ints = [0, 1, 2, 3]> () last = Constant <value_ints = [-1]> ()
    column = Unsqueeze (x, last)
"""


ON_OFF = "on = Constant <value_float = 1.0> () off = Constant <value_float = 0.0> ()"


@pytest.mark.parametrize(
    "body",
    [
        "hit = Equal (column, words) e = Cast <to = 1> (hit)",
        "hit = Equal (words, column) e = Cast <to = 1> (hit)",
        """
        shape = Constant <value_ints = [1, 6, 4]> () wide = Expand (column, shape)
        hit = Equal (wide, words) same = Reshape (hit, shape) e = Cast <to = 1> (same)
        """,
        f"hit = Equal (column, words) {ON_OFF} e = Where (hit, on, off)",
        f"""
        hit = Equal (column, words) {ON_OFF} shape = Constant <value_ints = [1, 6, 4]> ()
        high = Expand (on, shape) e = Where (hit, high, off)
        """,
        """
        hit = Equal (column, words) count = Where (hit, one, zero) e = Cast <to = 1> (count)
        """,
    ],
)
def test_a_look_up_may_be_written_out_as_a_comparison(body: str) -> None:
    assert start(ONE_HOT + body, "e") == "e"
    mask = "zero_too = Cast <to = 1> (column) kept = Mul (e, zero_too)"
    assert start(ONE_HOT + body + mask, "kept") == "e"


def test_a_choice_between_other_values_is_no_look_up() -> None:
    body = """
        e = Gather (table, x) hit = Equal (column, words) off = Constant <value_float = 0.0> ()
        kept = Where (hit, e, off) r = Relu (kept)
    """
    assert start(ONE_HOT + body, "r") == "e"


def test_a_comparison_with_one_value_is_no_look_up() -> None:
    body = """
        hit = Equal (column, zero) f = Cast <to = 1> (hit)
        four = Constant <value_ints = [1, 1, 4]> () wide = Tile (f, four)
    """
    with pytest.raises(ModelError, match="input 'x' reach the logits by no look-up or Cast"):
        start(ONE_HOT + body, "wide")


def test_integers_that_are_only_compared_are_refused() -> None:
    body = """
        b = Greater (x, zero) f = Cast <to = 1> (b) last = Constant <value_ints = [-1]> ()
        column = Unsqueeze (f, last) four = Constant <value_ints = [1, 1, 4]> ()
        wide = Tile (column, four)
    """
    with pytest.raises(ModelError, match="input 'x' reach the logits by no look-up or Cast"):
        start(body, "wide")


def test_look_ups_that_never_come_together_are_refused() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (int64[N] x) => (float[N, 3] y) '
        "<float[9, 3] w, float[9, 3] v> { e = Gather (w, x) f = Gather (v, x) y = Add (e, f) }"
    )
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 7, ["N", 1]))
    with pytest.raises(ModelError, match=r"embedded 2 times \(e, f\) and the results never come"):
        find_interface(proto)
