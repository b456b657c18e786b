"""Gates on whether the written graphs defend anything: bounds that bind, a threshold that flags.

A graph whose bounds no value ever reaches, or whose threshold no score ever passes, answers as
the original does and keeps every promise but the one that it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import MmbmError, RewriteError
from mmbm_onnx.evaluation.compare import bounds_in, telling_columns, upper_limit
from mmbm_onnx.evaluation.gates import Gate, holds
from mmbm_onnx.evaluation.predictions import Verdicts
from mmbm_onnx.evaluation.shadow_branch import (
    has_shadow,
    read_shadow_record,
    shadow_difference,
)
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.mapped import to_array
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.provenance import PREFIX, read_provenance
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.walk import ancestors, constant_values, graphs, inner_graphs, producers
from mmbm_onnx.rewriting.null import Null, fit_null, flags, p_values
from mmbm_onnx.runtime.batches import run_batches
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import DETECTOR_OUTPUTS, BoolArray, Interface, Site

FALSE_POSITIVE_RATE = "false_positive_rate"
"""Provenance key of a detector: the rate that its threshold was set for, a decimal fraction."""

_BOUNDED = "mmbm_bounded/"
_DECISION = "mmbm_decision/"
_ODD = "mmbm_odd/"
# What decides whether the second stage runs: name to operator and what it reads first.
_FIRST_STAGE = {
    "any_odd": ("Greater", ("odd_count", "none")),
    "odd_count": ("ReduceSum", ("odd_ones",)),
    "odd_ones": ("Cast", ("is_odd",)),
    "is_odd": ("Not", ("is_usual",)),
    "is_usual": ("Less", ("first", "gate")),
}
_SAMPLES = 64
_AMPLIFIED = 4.0
_SPIKES = 0.05
# Rounding of fused operators stays below this, relative to a row's largest logit.
_TOLERANCE = 1e-5
_HALF_TOLERANCE = 2e-2
# Tails are computed in float32, the normal one as 1 - erf.
_TAIL_TOLERANCE = 1e-5
# Of so many clean samples, one at least scores above the lowest of the calibration's scores.
_ENOUGH = 20
# By (in a subgraph of the original, tensor of the original).
_Limits = dict[tuple[bool, str], list[npt.NDArray[Any] | None]]


def hardened_effective(
    original: onnx.ModelProto,
    hardened: onnx.ModelProto,
    interface: Interface,
    x: npt.NDArray[Any],
    *,
    provider: str | None = None,
    threads: int | None = None,
    batch_size: int = 64,
) -> Gate:
    """The bounds change a logit of some sample that is clean, amplified or noise.

    Args:
        original: The model that was hardened.
        hardened: The graph with bounds.
        interface: The original's.
        x: Clean samples, ``(n, ...)``, n > 0.
        provider, threads, batch_size: As for ``verify_graphs``.
    """
    name = "hardened_effective"
    probes = probe_inputs(x)
    answers = []
    try:
        for proto in (original, hardened):
            session = Session(
                with_outputs(proto, [interface.logits]), provider=provider, threads=threads
            )
            found = run_batches(session, interface, probes, [interface.logits], batch_size)
            answers.append(np.asarray(found[interface.logits]))
    except MmbmError as error:
        return holds(name, False, f"could not be measured: {error}")
    half = has_halves(original)
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    changed = int(_changed_rows(answers[0], answers[1], tolerance).sum())
    what = f"{len(probes)} clean, amplified and noise inputs"
    if not changed:
        return holds(name, False, f"the bounds change no logit on {what}: they bound nothing")
    return holds(name, True, f"the bounds change logits on {changed} of {what}")


def probe_inputs(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """All of ``x``, then up to 64 each, seeded: amplified, with spikes, noise in and around range.

    Of integers, which may be indices of a table, only values between those of ``x``: one of each
    sample's all over it, noise, and the smallest and largest in turns.

    Args:
        x: Clean samples, ``(n, ...)``, n > 0.

    Returns:
        Inputs of the same dtype, finite.
    """
    rng = np.random.default_rng(0)
    if x.dtype.kind in "iu":
        return _integer_probes(x, rng)
    wide = x[:_SAMPLES].astype(np.float64)
    low, high = float(x.min()), float(x.max())
    margin = (_AMPLIFIED - 1) / 2 * (high - low)
    shape = (_SAMPLES, *x.shape[1:])
    spikes = np.where(rng.random(wide.shape) < _SPIKES, high + 2 * margin, wide)
    parts = [
        _AMPLIFIED * wide,
        spikes,
        rng.uniform(low, high, shape),
        rng.uniform(low - margin, high + margin, shape),
    ]
    # A quarter of the range: sums within the model should not overflow at once. bfloat16 has the
    # range of float32.
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    largest = float(np.finfo(kind).max) / 4
    return np.concatenate(
        [x, *(np.clip(part, -largest, largest).astype(x.dtype) for part in parts)]
    )


def _integer_probes(x: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    low, high = int(x.min()), int(x.max())
    flat = x[:_SAMPLES].reshape(min(len(x), _SAMPLES), -1)
    one = flat[np.arange(len(flat)), rng.integers(0, flat.shape[1], len(flat))]
    shape = (_SAMPLES, flat.shape[1])
    parts = [
        np.broadcast_to(one[:, None], flat.shape),
        rng.integers(low, high, shape, x.dtype, endpoint=True),
        np.where(rng.random(shape) < 0.5, low, high).astype(x.dtype),
    ]
    return np.concatenate([x, *(part.reshape(-1, *x.shape[1:]) for part in parts)])


def _changed_rows(a: npt.NDArray[Any], b: npt.NDArray[Any], tolerance: float) -> BoolArray:
    left, right = (array.astype(np.float64).reshape(len(array), -1) for array in (a, b))
    if left.shape != right.shape:
        return np.ones(len(left), np.bool_)
    if (telling := telling_columns(left) | telling_columns(right)).any():
        left, right = left[:, telling], right[:, telling]
    usable = np.isfinite(left) & np.isfinite(right)
    alike = (left == right) | (np.isnan(left) & np.isnan(right))
    gap = np.abs(np.where(usable, left, 0) - np.where(usable, right, 0))
    scale = np.abs(np.where(usable, left, 0)).max(axis=1, keepdims=True)
    differs = (gap > tolerance * scale) | ~(usable | alike)
    return np.asarray(differs.any(axis=1))


def detector_bounds(
    original: onnx.ModelProto,
    hardened: onnx.ModelProto,
    detector: onnx.ModelProto,
    interface: Interface,
) -> Gate:
    """The detector's bounded branch has the hardened graph's bounds, each with its value; one that
    is no copy of the original's nodes is what folding them gives, up to its rounding.

    Args:
        original: The model that was hardened.
        hardened: The graph with bounds.
        detector: The detector graph made with the same bounds.
        interface: The original's.
    """
    name = "detector_bounds"
    inlined, _ = inline_activation_functions(original)
    stated = bounds_in(inlined, hardened)
    needed = ancestors(inlined.graph, [interface.logits])
    if has_shadow(detector):
        return _shadow_gate(name, inlined, stated, detector, interface)
    branch = _branch_limits(detector)
    compared = 0
    for site in find_sites(inlined).sites:
        limits = branch.get((bool(site.scope), site.tensor), [])
        if not limits:
            # A bound behind the logits, or of another output alone, is not in the branch.
            if site.tensor in stated and site.tensor in needed:
                message = f"its bounded branch has no bound of {site.tensor!r}"
                return holds(name, False, message)
            continue
        wanted = _limit(site, stated.get(site.tensor))
        if any(not _same(wanted, _limit(site, limit)) for limit in limits):
            message = f"the bound of {site.tensor!r} is not the hardened graph's"
            return holds(name, False, message)
        compared += site.tensor in stated
    if not compared:
        return holds(name, False, "no bound of the hardened graph is in its bounded branch")
    return holds(name, True, f"{compared} bounds are the hardened graph's")


def _shadow_gate(
    name: str,
    inlined: onnx.ModelProto,
    stated: Mapping[str, npt.NDArray[Any] | None],
    detector: onnx.ModelProto,
    interface: Interface,
) -> Gate:
    try:
        record = read_shadow_record(detector)
    except RewriteError as error:
        return holds(name, False, str(error))
    for site in find_sites(inlined).sites:
        wanted, found = (
            _limit(site, bounds.get(site.tensor)) for bounds in (stated, record.bounds)
        )
        if not _same(wanted, found):
            message = f"the bound of {site.tensor!r} is not the hardened graph's"
            return holds(name, False, message)
    if found_difference := shadow_difference(inlined, detector, record, interface):
        return holds(name, False, f"its shadow branch: {found_difference}")
    message = f"{len(record.bounds)} bounds folded are its shadow branch"
    return holds(name, True, message)


def _branch_limits(detector: onnx.ModelProto) -> _Limits:
    """Upper limits in the bounded branch by (in a subgraph, tensor of the original)."""
    limits: _Limits = {}
    _add_limits(detector.graph, {}, limits)
    return limits


def _add_limits(
    graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto], limits: _Limits
) -> None:
    """Those of a graph; the branch is in the main one, or in a branch of its If."""
    constants = {**outer, **constant_values(graph)}
    for node in graph.node:
        made = [output for output in node.output if output.startswith(_BOUNDED)]
        for output in made:
            limits.setdefault((False, output[len(_BOUNDED) :]), []).append(
                upper_limit(node, constants)
            )
        for _, top in inner_graphs(node):
            if not made:
                _add_limits(top, constants, limits)
                continue
            seen = dict(constants)
            for _, body in graphs(top):
                seen.update(constant_values(body))
                for inner in body.node:
                    for output in filter(None, inner.output):
                        limits.setdefault((True, output), []).append(upper_limit(inner, seen))


def _limit(site: Site, bound: npt.NDArray[Any] | None) -> npt.NDArray[np.float64] | None:
    """The limit of the value itself: a ReLU6 never exceeds its own, whatever the bound."""
    if bound is None:
        return None if site.upper is None else np.full(1, site.upper)
    values = bound.astype(np.float64).ravel()
    return values if site.upper is None else np.minimum(values, site.upper)


def _same(a: npt.NDArray[np.float64] | None, b: npt.NDArray[np.float64] | None) -> bool:
    if a is None or b is None:
        return a is b
    if min(a.size, b.size) == 0:
        return a.size == b.size
    return (a.size == b.size or 1 in (a.size, b.size)) and bool((a == b).all())


def detector_threshold(detector: onnx.ModelProto, verdicts: Verdicts) -> Gate:
    """The threshold is what the stored null and the rate give, and decides the clean samples.

    Args:
        detector: The detector graph.
        verdicts: What it answered on the clean set.
    """
    name = "detector_threshold"
    try:
        rate = _stated_rate(detector)
        null, threshold = _stored_null(constant_values(detector.graph), rate)
    except RewriteError as error:
        return holds(name, False, str(error))
    if found := _stages(detector, threshold) or _score_without_numbers(detector):
        return holds(name, False, found)
    if not _close(threshold, null):
        message = (
            f"the threshold is {threshold:.6g}, its null gives {null.threshold:.6g} at a "
            f"false-positive rate of {rate:g}"
        )
        return holds(name, False, message)
    # The graph's own number, which a Gaussian null gives but for its rounding.
    null = replace(null, threshold=threshold)
    wrong = int((flags(null, verdicts.score) != verdicts.flagged).sum())
    if wrong:
        return holds(name, False, f"{wrong} clean samples are not flagged as their scores tell")
    wrong = int((~_p_values_fit(null, verdicts)).sum())
    if wrong:
        message = f"{wrong} clean samples have a p-value that does not fit their score or flag"
        return holds(name, False, message)
    if null.kind == "conformal" and len(verdicts.score) >= _ENOUGH:
        top = float(verdicts.score.max())
        if top == float(verdicts.score.min()) and null.scores[0] < null.scores[-1]:
            return holds(name, False, f"every clean sample has the same score, {top:.6g}")
        if top < float(null.scores[0]):
            message = (
                f"every clean sample scores below all of its null ({top:.6g}, the null begins "
                f"at {float(null.scores[0]):.6g}): it was fitted to other scores"
            )
            return holds(name, False, message)
    return holds(name, True, f"{null.kind} threshold {threshold:.6g} of its null at {rate:g}")


def stated_threshold(detector: onnx.ModelProto) -> float | None:
    """The score above which a detector graph flags, or None where it has none of our constants."""
    try:
        return _stored_null(constant_values(detector.graph), _stated_rate(detector))[1]
    except RewriteError:
        return None


def _stages(detector: onnx.ModelProto, threshold: float) -> str:
    """What is wrong with a detector in two stages, or nothing: the second flags by the same
    threshold, the first lets no sample go that is above it, and decides what runs; and nothing in
    there takes the place of what the original has."""
    own = constant_values(detector.graph)
    made = producers(detector.graph)
    for node in detector.graph.node:
        if not any(name.startswith(_DECISION) or name in DETECTOR_OUTPUTS for name in node.output):
            continue
        for _, top in inner_graphs(node):
            if list(node.input) != [f"{_DECISION}any_odd"]:
                return f"its second stage runs by {node.input[0]!r}"
            if found := _first_stage(made, own):
                return found
            inner = constant_values(top)
            taken = {name for part in top.node for name in part.output if name} | inner.keys()
            if shadowed := sorted(taken & (own.keys() | made.keys())):
                return f"{shadowed[0]!r} is made again in a branch of its second stage"
            gate = own.get(f"{_DECISION}gate")
            if gate is None or not float(to_array(gate).reshape(())) <= threshold:
                return "its first stage lets samples go that score above the threshold"
            second = inner.get(f"{_ODD}threshold")
            if second is not None and float(to_array(second).reshape(())) != threshold:
                return "its two stages have different thresholds"
    return ""


def _score_without_numbers(detector: onnx.ModelProto) -> str:
    """What is wrong with the score of a sample some of whose logits are no number; or nothing."""
    for _, graph in graphs(detector.graph):
        constants = constant_values(graph)
        for prefix in (_DECISION, _ODD):
            given = constants.get(f"{prefix}nan")
            if given is not None and not np.isnan(to_array(given)).all():
                return "it gives a score to samples whose logits are no numbers"
    return ""


def _first_stage(
    made: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> str:
    """Why the second stage does not run wherever a first score is above the gate; or nothing."""
    for name, (operator, reads) in _FIRST_STAGE.items():
        node = made.get(_DECISION + name)
        wanted = [_DECISION + source for source in reads]
        if node is None or node.op_type != operator or list(node.input[: len(wanted)]) != wanted:
            return f"its second stage does not run wherever its first one says: {name!r}"
    none = constants.get(f"{_DECISION}none")
    if none is None or not 0 <= float(to_array(none).reshape(())) < 1:
        return "its second stage does not run for one sample alone"
    return ""


def _stated_rate(detector: onnx.ModelProto) -> float:
    text = read_provenance(detector).get(FALSE_POSITIVE_RATE)
    if text is None:
        raise RewriteError(f"metadata has no {PREFIX}{FALSE_POSITIVE_RATE}")
    try:
        rate = float(text)
    except ValueError:
        rate = float("nan")
    if not 0 < rate < 1:
        raise RewriteError(f"{PREFIX}{FALSE_POSITIVE_RATE} is {text!r}, expected in (0, 1)")
    return rate


def _stored_null(constants: Mapping[str, onnx.TensorProto], rate: float) -> tuple[Null, float]:
    """The null that the graph's constants tell at that rate, and the graph's own threshold."""

    def stored(name: str) -> npt.NDArray[Any] | None:
        tensor = constants.get(_DECISION + name)
        return None if tensor is None else to_array(tensor)

    threshold, scores, tail = stored("threshold"), stored("null_scores"), stored("tail_start")
    mean, scale = stored("null_mean"), stored("null_scale")
    if threshold is None or threshold.size != 1:
        raise RewriteError(f"it has no constant {_DECISION}threshold")
    own = float(threshold.reshape(()))
    if scores is not None:
        null = fit_null(scores.ravel(), rate, steady=tail is not None)
        if null.kind != "conformal":
            raise RewriteError(f"{scores.size} stored scores give no rank at a rate of {rate:g}")
        return null, own
    if mean is None or scale is None or mean.size != 1 or scale.size != 1:
        raise RewriteError(f"it has no null: neither {_DECISION}null_scores nor null_mean")
    centre, std = float(mean.reshape(())), float(scale.reshape(())) / np.sqrt(2)
    if not (np.isfinite([centre, std]).all() and std >= 0):
        raise RewriteError("its null has no finite mean and standard deviation")
    return _gaussian(centre, std, rate), own


def _gaussian(mean: float, std: float, rate: float) -> Null:
    quantile = NormalDist().inv_cdf(1 - rate)
    return Null("gaussian", np.zeros(0, np.float32), mean, std, mean + quantile * std, rate)


def _close(threshold: float, null: Null) -> bool:
    tiny = float(np.finfo(np.float32).tiny)
    if null.kind == "conformal":
        # What is next to nothing may have been taken for 0 where it was written.
        same = np.float32(threshold) == np.float32(null.threshold)
        return bool(same) or abs(threshold - null.threshold) <= 4 * tiny
    # Mean and scale are stored in float32.
    slack = 4 * float(np.finfo(np.float32).eps) * (abs(null.mean) + abs(null.threshold - null.mean))
    return abs(threshold - null.threshold) <= slack + tiny


def _p_values_fit(null: Null, verdicts: Verdicts) -> BoolArray:
    """Rows whose p-value is the null's and at most the rate exactly where flagged."""
    given = np.asarray(verdicts.p_value, np.float64)
    expected = p_values(null, verdicts.score).astype(np.float64)
    rate = null.false_positive_rate
    if null.kind == "conformal" and null.tail is None:
        total = len(null.scores) + 1
        ranks = np.rint(given * total)
        rare = ranks <= np.floor(rate * total + 1e-9)
        return np.asarray((ranks == np.rint(expected * total)) & (rare == verdicts.flagged))
    slack = _TAIL_TOLERANCE
    near = np.abs(given - rate) <= slack
    fits = near | ((given <= rate) == verdicts.flagged)
    return np.asarray((np.abs(given - expected) <= slack) & fits)
