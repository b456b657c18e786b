"""The decision inside the detector graph: score, p-value, flag, corrected logits.

MMDF (arXiv 2308.04617): with k the original's decision, the margin difference is the margin of k
in the original minus the margin of k in the bounded branch. It is the score, alone or with the
evidence of the activations; a score that is improbable on clean samples is flagged, and the answer
is then the bounded branch's best class other than k. One exception goes beyond the paper: where the
bounded branch decides for k as well, and bounds have taken less from k's margin than they take from
clean samples, k stays. There is a trigger, but it works against k. Everything is computed in
float32, with operators of opset 9 and up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from mmbm_onnx.rewriting.null import Null, Tail, gaussian_scale
from mmbm_onnx.rewriting.operators import Operators

# Corrected logits are kept within these limits, so that a value below the smallest of them and
# every difference of two stays finite in the logits' own type.
_LIMITS: dict[int, float] = {TensorProto.FLOAT16: 16384.0}
_LIMIT = 1e38
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Decision:
    """Tensors of the decision, each ``(n, 1)`` unless said otherwise.

    Attributes:
        score: float32; not a number if any logit is not.
        flagged: bool.
        suspected: The original's decision, int64.
        corrected: The answer: the suspected class unless flagged, int64.
        logits: Bounded logits ``(n, classes)`` in the logits' type, finite, the suspected class
            strictly below all others unless it stays.
    """

    score: gs.Tensor
    flagged: gs.Tensor
    suspected: gs.Tensor
    corrected: gs.Tensor
    logits: gs.Tensor


def decide(
    ops: Operators,
    original: gs.Tensor,
    bounded: gs.Tensor,
    dtype: int,
    classes: int,
    null: Null,
    weigh: Callable[[gs.Tensor, gs.Tensor], gs.Tensor] | None = None,
    stays_below: float | None = None,
) -> Decision:
    """Append the decision on two logits tensors ``(n, classes)`` of ONNX element type ``dtype``.

    Args:
        ops: Where nodes go.
        original, bounded: The logits.
        dtype: Their type.
        classes: Number of classes.
        null: What the score looks like on clean samples.
        weigh: Makes the score ``(n, 1)`` of the original's decision and the margin difference, both
            ``(n, 1)``; None where that is the score.
        stays_below: Margin difference below which a suspected class stays that the bounded branch
            decides for, too; None where none does.
    """
    original = _rounded(ops, original, dtype, "original")
    bounded = _rounded(ops, bounded, dtype, "bounded")
    first = as_float32(ops, original, dtype, "original_logits")
    second = as_float32(ops, bounded, dtype, "bounded_logits")
    deciding = original if dtype == TensorProto.DOUBLE else first
    suspected = ops.add("ArgMax", deciding, name="suspected", axis=1, keepdims=1)
    indices = ops.constant("classes", np.arange(classes)[None], np.int64)
    mask = ops.add("Equal", suspected, indices, name="is_suspected")

    margins = [
        _margin(ops, mask, logits, f"{name}_margin")
        for name, logits in (("original", first), ("bounded", second))
    ]
    difference = ops.add("Sub", *margins, name="margin_difference")
    score = difference if weigh is None else weigh(suspected, difference)
    score = _spoiled_by_nan(ops, score, first, second)
    flagged = flag(ops, null, score)

    if stays_below is not None:
        mask = _without_those_that_stay(ops, mask, margins[1], difference, stays_below)
    masked = _masked(ops, mask, bounded, second, dtype)
    best = as_float32(ops, masked, dtype, "masked_widened") if dtype in _HALF else masked
    # Logits are chosen, not classes: OpenVINO compares the bits of integers as floats, which are
    # denormal, and in a process that takes those for zero its Where sees nothing flagged.
    decisive = ops.add("Where", flagged, best, deciding, name="deciding")
    return Decision(
        score=score,
        flagged=flagged,
        suspected=suspected,
        corrected=ops.add("ArgMax", decisive, name="corrected", axis=1, keepdims=1),
        logits=masked,
    )


def flag(ops: Operators, null: Null, score: gs.Tensor) -> gs.Tensor:
    """Whether scores of any shape are above the threshold, or no number; bool."""
    undefined = ops.add("IsNaN", score, name="score_is_nan")
    threshold = ops.constant("threshold", null.threshold, np.float32)
    above = ops.add("Greater", score, threshold, name="above_threshold")
    return ops.add("Or", above, undefined, name="is_flagged")


def suspect(ops: Operators, logits: gs.Tensor, dtype: int) -> gs.Tensor:
    """The decision of logits ``(n, classes)`` of type ``dtype``: its class, int64 ``(n,)``."""
    logits = _rounded(ops, logits, dtype, "decided")
    # float64 keeps its own comparison: two classes may be equal once rounded to float32.
    if dtype != TensorProto.DOUBLE:
        logits = as_float32(ops, logits, dtype, "decided_logits")
    return ops.add("ArgMax", logits, name="suspected", axis=1, keepdims=0)


def _rounded(ops: Operators, logits: gs.Tensor, dtype: int, name: str) -> gs.Tensor:
    """The same logits. ONNX Runtime drops pairs of casts, and with them the rounding that decides
    between equal classes; Flatten changes nothing on (n, classes) and stands between the two."""
    if dtype not in _HALF:
        return logits
    return ops.add("Flatten", logits, name=f"{name}_rounded", axis=1)


def as_float32(ops: Operators, tensor: gs.Tensor, dtype: int, name: str) -> gs.Tensor:
    """Logits of type ``dtype`` in float32."""
    return tensor if dtype == TensorProto.FLOAT else ops.cast(tensor, TensorProto.FLOAT, name)


def _margin(ops: Operators, mask: gs.Tensor, logits: gs.Tensor, name: str) -> gs.Tensor:
    """Margin ``(n, 1)`` of the class in the mask ``(n, classes)``, of float32 logits."""
    zero = ops.constant(f"{name}_zero", 0, np.float32)
    lowest = ops.constant(f"{name}_lowest", -np.inf, np.float32)
    own = ops.add("Where", mask, logits, zero, name=f"{name}_own")
    others = ops.add("Where", mask, lowest, logits, name=f"{name}_others")
    value = ops.reduce("ReduceSum", own, f"{name}_value")  # of one number and zeros: exact
    rival = ops.reduce("ReduceMax", others, f"{name}_rival")
    return ops.add("Sub", value, rival, name=name)


def _without_those_that_stay(
    ops: Operators, mask: gs.Tensor, bounded: gs.Tensor, difference: gs.Tensor, limit: float
) -> gs.Tensor:
    """The mask, empty in rows whose suspected class stays."""
    none = ops.constant("no_margin", 0, np.float32)
    most = ops.constant("stays_below", limit, np.float32)
    agrees = ops.add("Greater", bounded, none, name="bounded_agrees")
    held = ops.add("Less", difference, most, name="margin_held")
    stays = ops.add("And", agrees, held, name="stays")
    return ops.add("And", mask, ops.add("Not", stays, name="goes"), name="is_withdrawn")


def _spoiled_by_nan(
    ops: Operators, score: gs.Tensor, first: gs.Tensor, second: gs.Tensor
) -> gs.Tensor:
    """Maximum may pass over a NaN, so NaN logits are looked for on their own."""
    missing = [
        ops.add("IsNaN", logits, name=f"{name}_is_nan")
        for name, logits in (("original", first), ("bounded", second))
    ]
    either = ops.add("Or", *missing, name="logit_is_nan")
    count = ops.reduce("ReduceMax", ops.cast(either, TensorProto.FLOAT, "nan_logits"), "any_nan")
    half = ops.constant("half", 0.5, np.float32)
    spoiled = ops.add("Greater", count, half, name="row_has_nan")
    nan = ops.constant("nan", np.nan, np.float32)
    return ops.add("Where", spoiled, nan, score, name="score")


def p_value(ops: Operators, null: Null, score: gs.Tensor) -> gs.Tensor:
    """P-values ``(n,)`` of scores ``(n,)``, float32, as ``null.p_values`` computes them."""
    undefined = ops.add("IsNaN", score, name="score_is_missing")
    if null.kind == "conformal":
        total = np.float32(len(null.scores) + 1)
        scores = ops.constant("null_scores", null.scores[:, None], np.float32)
        lower = ops.add("Less", scores, score, name="null_is_lower")
        lower = ops.cast(lower, TensorProto.FLOAT, "null_lower")
        count = ops.over("ReduceSum", lower, [0], "null_count", keepdims=0)
        size = ops.constant("null_size", total, np.float32)
        rest = ops.add("Sub", size, count, name="null_rest")
        value = ops.add("Div", rest, size, name="rank")
        if null.tail is not None:
            value = ops.add("Max", value, _tail(ops, null.tail, score), name="rank_or_tail")
        smallest = ops.constant("smallest_p_value", np.float32(1) / total, np.float32)
    else:
        mean = ops.constant("null_mean", null.mean, np.float32)
        scale = ops.constant("null_scale", gaussian_scale(null), np.float32)
        one = ops.constant("one", 1, np.float32)
        half = ops.constant("tail_half", 0.5, np.float32)
        centred = ops.add("Sub", score, mean, name="centred")
        distance = ops.add("Div", centred, scale, name="distance")
        inner = ops.add("Erf", distance, name="erf")
        tail = ops.add("Sub", one, inner, name="two_tails")
        value = ops.add("Mul", half, tail, name="tail")
        smallest = ops.constant("smallest_p_value", 0, np.float32)
    return ops.add("Where", undefined, smallest, value, name="p_value")


def _masked(
    ops: Operators, mask: gs.Tensor, bounded: gs.Tensor, wide: gs.Tensor, dtype: int
) -> gs.Tensor:
    """Bounded logits made finite, the masked class below the smallest by 1 and an eighth of it."""
    limit = _LIMITS.get(dtype, _LIMIT)
    high = ops.constant("highest_logit", limit, np.float32)
    low = ops.constant("lowest_logit", -limit, np.float32)
    zero = ops.constant("no_logit", 0, np.float32)
    under = ops.add("Less", wide, high, name="is_under")
    over = ops.add("Greater", wide, low, name="is_over")
    inside = ops.add("And", under, over, name="is_inside")  # False for NaN, which becomes lowest
    positive = ops.add("Greater", wide, zero, name="is_positive")
    nearest = ops.add("Where", positive, high, low, name="nearest_limit")
    finite = ops.add("Where", inside, wide, nearest, name="finite_logits")

    smallest = ops.reduce("ReduceMin", finite, "smallest_logit")
    size = ops.add("Abs", smallest, name="smallest_size")
    eighth = ops.constant("eighth", 0.125, np.float32)
    gap = ops.add("Mul", size, eighth, name="relative_gap")
    one = ops.constant("unit_gap", 1, np.float32)
    below = ops.add("Sub", smallest, one, name="below_smallest")
    floor = ops.add("Sub", below, gap, name="mask_value")
    if dtype != TensorProto.DOUBLE:
        masked = ops.add("Where", mask, floor, finite, name="masked_float32")
        return masked if dtype == TensorProto.FLOAT else ops.cast(masked, dtype, "masked_logits")
    nearest_double = ops.cast(nearest, dtype, "nearest_limit_float64")
    finite_double = ops.add("Where", inside, bounded, nearest_double, name="finite_float64")
    floor_double = ops.cast(floor, dtype, "mask_value_float64")
    return ops.add("Where", mask, floor_double, finite_double, name="masked_logits")


def _tail(ops: Operators, tail: Tail, score: gs.Tensor) -> gs.Tensor:
    start = ops.constant("tail_start", tail.start, np.float32)
    fall = ops.constant("tail_fall", -tail.excess, np.float32)
    share = ops.constant("tail_share", tail.share, np.float32)
    zero = ops.constant("tail_zero", 0, np.float32)
    over = ops.add("Max", ops.add("Sub", score, start, name="from_start"), zero, name="over_start")
    rarer = ops.add("Exp", ops.add("Div", over, fall, name="falls"), name="fallen")
    return ops.add("Mul", share, rarer, name="tail_above")
