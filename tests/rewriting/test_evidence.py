"""Evidence: distances against their textbook form, clean scores that were not fitted on, and the
nodes against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from rewriting_helpers import (
    interface,
    parse,
    random_bounds,
    relu_sites,
    run_named,
    serialized,
    site,
)

from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector, build_probe
from mmbm_onnx.rewriting.evidence import FEWEST, Evidence, fit_evidence
from mmbm_onnx.rewriting.evidence_nodes import watched_sites
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null, flags
from mmbm_onnx.types import DETECTOR_OUTPUTS

CLASSES = 3


def clean(n: int, channels: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Summaries ``(1, n, channels)`` whose roots are normal around a mean of their class."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, n)
    means = 10 + 3 * np.random.default_rng(99).normal(size=(CLASSES, channels))
    mix = np.eye(channels) + 0.1 * np.random.default_rng(98).normal(size=(channels, channels))
    roots = means[classes] + rng.normal(size=(n, channels)) @ mix
    return np.square(np.maximum(roots, 0))[None].astype(np.float32), classes


def fitted(
    summaries: dict[str, np.ndarray], classes: np.ndarray, margins=None, seed=0, **changes
) -> tuple[Evidence, np.ndarray]:
    n = len(classes)
    arguments = {
        "right": np.ones(n, bool),
        "learned_on": np.zeros(n, bool),
        "classes": CLASSES,
        "seed": seed,
        **changes,
    }
    given = np.zeros(n, np.float32) if margins is None else margins
    found = fit_evidence(summaries, classes, given, **arguments)
    assert found is not None
    return found.evidence, found.scores


def test_distances_of_full_rank_are_mahalanobis() -> None:
    summaries, classes = clean(20000)
    evidence, _ = fitted({"act": summaries}, classes)
    roots = np.sqrt(summaries[0].astype(np.float64))
    means = np.stack([roots[classes == c].mean(0) for c in range(CLASSES)])
    inverse = np.linalg.inv(np.cov((roots - means[classes]).T))
    offsets = roots[:50, None] - means[None]
    expected = np.einsum("ncd,de,nce->nc", offsets, inverse, offsets) / 6
    found = evidence.sites[0](summaries[:, :50])[0]
    assert np.allclose(found, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("channels", [40, 400])
def test_distances_beyond_the_rank_count_every_direction(channels: int) -> None:
    # Independent channels: the expected squared distance from the own class is their number.
    rng = np.random.default_rng(0)
    roots = 20 + rng.normal(size=(200, channels)) * np.linspace(0.5, 2, channels)
    summaries = np.square(roots)[None].astype(np.float32)
    evidence, _ = fitted({"act": summaries}, rng.integers(0, CLASSES, 200))
    fresh = np.square(20 + rng.normal(size=(500, channels)) * np.linspace(0.5, 2, channels))
    found = evidence.sites[0](fresh[None].astype(np.float32))[0].mean()
    assert found == pytest.approx(1, rel=0.25)
    moved = fresh[None].astype(np.float32)
    moved[:, :, 0] = np.square(20 + 0.5 * 30)  # 30 deviations of one channel
    assert evidence.sites[0](moved)[0].min() > found + 400 / channels


def test_clean_scores_are_those_of_fresh_samples() -> None:
    # Fitted on the very samples that it scores, the score would be far too low.
    rates = []
    for seed in range(20):
        summaries, classes = clean(150, channels=60, seed=seed)
        evidence, scores = fitted({"act": summaries}, classes, seed=seed)
        null = fit_null(scores, 0.05)
        fresh, theirs = clean(2000, channels=60, seed=seed + 1000)
        found = evidence.scores({"act": fresh}, theirs, np.zeros(2000, np.float32))
        rates.append(flags(null, found).mean())
        again = evidence.scores({"act": summaries}, classes, np.zeros(150, np.float32))
        assert again.mean() < scores.mean() - 0.3
    assert 0.02 < np.mean(rates) < 0.06


def test_a_sample_of_another_class_and_one_out_of_range_score_high() -> None:
    summaries, classes = clean(300)
    evidence, scores = fitted({"act": summaries}, classes)
    null = fit_null(scores, 0.01)
    fresh, theirs = clean(300, seed=1)
    zero = np.zeros(300, np.float32)
    wrong = evidence.scores({"act": fresh}, (theirs + 1) % CLASSES, zero)
    assert flags(null, wrong).mean() > 0.9
    loud = fresh.copy()
    loud[:, :, 2] *= 3
    assert flags(null, evidence.scores({"act": loud}, theirs, zero)).mean() > 0.9
    assert flags(null, evidence.scores({"act": fresh}, theirs, zero)).mean() < 0.05


def test_the_margin_difference_alone_flags() -> None:
    summaries, classes = clean(300)
    margins = np.random.default_rng(3).normal(size=300).astype(np.float32)
    evidence, scores = fitted({"act": summaries}, classes, margins)
    null = fit_null(scores, 0.01)
    fresh, theirs = clean(100, seed=1)
    large = np.full(100, 40, np.float32)
    assert flags(null, evidence.scores({"act": fresh}, theirs, large)).all()
    assert evidence.margin == pytest.approx(0.2 / margins.std(), rel=0.02)
    assert evidence.usual == pytest.approx(margins.mean() - margins.std(), rel=1e-4)


def test_margins_of_learned_samples_are_taken_for_fresh_ones() -> None:
    summaries, classes = clean(400)
    rng = np.random.default_rng(4)
    learned_on = np.arange(400) % 2 == 0
    margins = np.where(learned_on, 0.01, 1) * rng.normal(size=400)
    evidence, _ = fitted(
        {"act": summaries}, classes, margins.astype(np.float32), learned_on=learned_on
    )
    # Measured in the spread of the fresh half, not in that of both.
    fresh = margins[~learned_on]
    assert evidence.margin == pytest.approx(0.2 / fresh.std(), rel=0.05)
    assert evidence.usual == pytest.approx(fresh.mean() - fresh.std(), rel=0.1)


def test_wrong_decisions_do_not_tell_what_a_class_looks_like() -> None:
    summaries, classes = clean(300)
    wrong = np.arange(300) % 10 == 0
    decided = np.where(wrong, (classes + 1) % CLASSES, classes)
    evidence, _ = fitted({"act": summaries}, decided, right=~wrong)
    alone, _ = fitted({"act": summaries[:, ~wrong]}, decided[~wrong])
    assert np.allclose(evidence.sites[0].offsets, alone.sites[0].offsets, rtol=1e-4)


def test_a_class_without_samples_is_far_from_everything_but_finite() -> None:
    summaries, classes = clean(300)
    seen = classes != 2
    evidence, scores = fitted({"act": summaries[:, seen]}, classes[seen])
    null = fit_null(scores, 0.01)
    found = evidence.scores(
        {"act": summaries[:, ~seen]}, classes[~seen], np.zeros((~seen).sum(), np.float32)
    )
    assert np.isfinite(found).all()
    assert flags(null, found).mean() > 0.5


def test_there_is_no_evidence_of_too_few_samples_or_still_sites() -> None:
    summaries, classes = clean(FEWEST - 1)
    margins = np.zeros(FEWEST - 1, np.float32)
    keys = {"right": margins == 0, "learned_on": margins > 0, "classes": CLASSES, "seed": 0}
    assert fit_evidence({"act": summaries}, classes, margins, **keys) is None
    summaries, classes = clean(50)
    margins = np.zeros(50, np.float32)
    keys |= {"right": margins == 0, "learned_on": margins > 0}
    assert fit_evidence({"act": np.ones_like(summaries)}, classes, margins, **keys) is None
    found = fit_evidence(
        {"still": np.ones_like(summaries), "act": summaries}, classes, margins, **keys
    )
    assert found is not None
    assert [item.tensor for item in found.evidence.sites] == ["act"]


def test_equal_seeds_give_equal_bits() -> None:
    summaries, classes = clean(100)
    first, scores = fitted({"act": summaries}, classes, seed=3)
    second, again = fitted({"act": summaries}, classes, seed=3)
    assert np.array_equal(scores, again)
    assert np.array_equal(first.sites[0].basis, second.sites[0].basis)


CONVOLUTIONAL = """
    net ({t}[N, 2, 6, 6] x) => ({t}[N, 3] logits) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, w1)
        first = Relu(a)
        b = Conv (first, w2)
        second = Relu(b)
        c = GlobalAveragePool(second)
        flat = Flatten(c)
        d = MatMul(flat, w3)
        third = Relu(d)
        logits = MatMul(third, w4)
    }}
"""
KINDS = {"float": np.float32, "float16": np.float16, "double": np.float64}


def convolutional(kind: str = "float", opset: int = 17) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w1": (5, 2, 3, 3), "w2": (7, 5, 3, 3), "w3": (7, 6), "w4": (6, 3)}
    weights = {n: rng.normal(0, 0.4, s).astype(KINDS[kind]) for n, s in shapes.items()}
    return parse(CONVOLUTIONAL.format(t=kind), opset=opset, **weights)


def paired(model: onnx.ModelProto, x: np.ndarray, dtype=np.float32, sites=None, **options):
    """Detector with evidence fitted on ``x``, its answers to other inputs, and the reference."""
    rng = np.random.default_rng(1)
    sites = relu_sites(model) if sites is None else sites
    bounds = random_bounds(sites, rng, 0.2, 0.6)
    face = interface(3, dtype=dtype, **options)
    probe, outputs = build_probe(model, face, sites, bounds)
    check_written(probe)

    def look(values: np.ndarray):
        answers = run_named(probe, x=values)
        assert answers["mmbm_flagged"].all()
        summaries = {tensor: answers[name].transpose(1, 0, 2) for tensor, name in outputs.items()}
        return summaries, answers["mmbm_suspected_class"], answers["mmbm_score"]

    found = fit_evidence(
        *look(x),
        right=np.ones(len(x), bool),
        learned_on=np.zeros(len(x), bool),
        classes=3,
        seed=0,
    )
    assert found is not None
    evidence, scores = found.evidence, found.scores
    before = serialized(model)
    built = build_detector(model, face, sites, bounds, fit_null(scores, 0.1), evidence)
    assert serialized(model) == before
    check_written(built)
    check_signature(model, built, DETECTOR_OUTPUTS)
    other = (1.5 * rng.normal(size=x.shape)).astype(dtype)
    return built, run_named(built, x=other), evidence.scores(*look(other)), other, evidence


@pytest.mark.parametrize("opset", [9, 12, 13, 17, 18, 21])
def test_nodes_compute_the_score(opset: int) -> None:
    model = convolutional(opset=opset)
    x = np.random.default_rng(2).normal(size=(80, 2, 6, 6)).astype(np.float32)
    _, answers, expected, other, evidence = paired(model, x)
    assert [item.tensor for item in evidence.sites] == ["first", "second", "third"]
    assert [len(item.basis) for item in evidence.sites] == [2, 2, 1]
    assert np.allclose(answers["mmbm_score"], expected, rtol=1e-3, atol=2e-4)
    assert answers["mmbm_flagged"].any()
    assert not answers["mmbm_flagged"].all()
    plain = run_named(model, x=other)["logits"]
    kept = ~answers["mmbm_flagged"]
    assert np.array_equal(answers["logits"][kept], plain[kept])


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_a_flagged_class_stays_where_both_decide_for_it_and_bounds_took_little(kind: str) -> None:
    model, sites = convolutional(kind), relu_sites(convolutional(kind))
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 2, 6, 6)).astype(KINDS[kind])
    *_, evidence = paired(model, x[:80], dtype=KINDS[kind])
    bounds = random_bounds(sites, np.random.default_rng(1), 0.2, 0.6)
    bounded = run_named(insert_bounds(model, sites, bounds), x=x)["logits"]
    original = run_named(model, x=x)["logits"]
    first = original.argmax(1)
    rows, own = np.arange(400), first[:, None] == np.arange(3)

    def margin(logits: np.ndarray) -> np.ndarray:
        wide = logits.astype(np.float32)
        return wide[rows, first] - np.where(own, np.float32(-np.inf), wide).max(1)

    held, taken = margin(bounded), margin(original) - margin(bounded)
    limit = float(np.float32(np.median(taken[held > 0])))
    stays = (held > 0) & (taken < limit)
    sure = (np.abs(held) > 0.01) & (np.abs(taken - limit) > 0.01)  # whatever float16 rounds
    assert (stays & sure).sum() > 30
    assert ((held > 0) & (taken >= limit) & sure).sum() > 30
    always = fit_null(np.full(9, -1000, np.float32), 0.5)
    built = build_detector(
        model,
        interface(3, dtype=KINDS[kind]),
        sites,
        bounds,
        always,
        replace(evidence, usual=limit),
    )
    check_written(built)
    answers = run_named(built, x=x)
    assert answers["mmbm_flagged"].all()
    best_other = np.where(own, np.float32(-np.inf), bounded).argmax(1)
    wanted = np.where(stays, first, best_other)
    assert np.array_equal(answers["mmbm_corrected_class"][sure], wanted[sure])
    assert np.array_equal(answers["logits"].argmax(1), answers["mmbm_corrected_class"])
    close = 2e-2 if kind == "float16" else 1e-5
    kept = stays & sure
    assert np.allclose(answers["logits"][kept], bounded[kept], rtol=close, atol=close)


DENSE = """
    net (double[N, 6] x) => (double[N, 3] logits) {
        a = MatMul(x, w3)
        act = Relu(a)
        logits = MatMul(act, w4)
    }
"""


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_nodes_compute_the_score_of_other_types(kind: str) -> None:
    rng = np.random.default_rng(2)
    model, shape = convolutional("float16"), (80, 2, 6, 6)
    if kind == "double":  # in which ONNX Runtime has no convolution
        shape = (80, 6)
        model = parse(DENSE, w3=rng.normal(size=(6, 6)), w4=rng.normal(size=(6, 3)))
    x = rng.normal(size=shape).astype(KINDS[kind])
    _, answers, expected, _, _ = paired(model, x, dtype=KINDS[kind])
    assert answers["mmbm_score"].dtype == np.float32
    assert np.allclose(answers["mmbm_score"], expected, rtol=1e-3, atol=2e-4)


def test_channels_may_be_on_the_last_axis() -> None:
    rng = np.random.default_rng(0)
    model = parse(
        """
        net (float[N, 5, 4] x) => (float[N, 3] logits) {
            a = MatMul(x, w1)
            act = Relu(a)
            pooled = ReduceMean <axes = [1], keepdims = 0> (act)
            logits = MatMul(pooled, w2)
        }
        """,
        w1=rng.normal(size=(4, 8)).astype(np.float32),
        w2=rng.normal(size=(8, 3)).astype(np.float32),
    )
    x = rng.normal(size=(60, 5, 4)).astype(np.float32)
    sites = [site("act", 8, rank=3, axis=2)]
    _, answers, expected, other, evidence = paired(model, x, sites=sites)
    assert evidence.sites[0].basis.shape[:2] == (2, 8)
    assert np.allclose(answers["mmbm_score"], expected, rtol=1e-3, atol=2e-4)
    act = np.maximum(other @ np.asarray(onnx.numpy_helper.to_array(model.graph.initializer[0])), 0)
    summaries = np.stack([act.mean(1), act.max(1)])
    decided = answers["mmbm_suspected_class"]
    by_hand = evidence.scores({"act": summaries}, decided, np.zeros(len(other), np.float32))
    assert np.corrcoef(by_hand, answers["mmbm_score"])[0, 1] > 0.5


def test_at_most_six_sites_are_watched_those_with_the_fewest_values() -> None:
    known = [site(f"a{index}", 4) for index in range(15)]
    unknown = [site("lost", rank=None, axis=None), site("inner", 4, scope="if/then_branch")]
    make = onnx.helper.make_tensor_type_proto
    width = {f"a{index}": 5 + index % 3 for index in range(15)}
    types = {name: make(onnx.TensorProto.FLOAT, ["N", 4, w]) for name, w in width.items()}
    chosen = watched_sites([*unknown, *known], types)
    places = [known.index(one) for one in chosen]
    assert len(places) == 6 and places == sorted(places)
    # Stretches of three have one of the narrowest; of two, one of the narrower.
    assert all(width[one.tensor] == 5 for one in chosen[:3])
    assert all(width[one.tensor] < 7 for one in chosen[3:])
    # Where all are alike, or nobody knows, the last of each stretch.
    alike = watched_sites(known, {})
    assert [known.index(one) for one in alike] == [2, 5, 8, 10, 12, 14]
    for shape in (["N", 4, "W"], ["N", 4, -1], None):
        vague = {name: make(onnx.TensorProto.FLOAT, shape) for name in width}
        assert watched_sites(known, vague) == alike
    assert watched_sites([*unknown, *known[:3]], types) == known[:3]


def test_values_that_are_no_numbers_are_flagged() -> None:
    model = convolutional()
    x = np.random.default_rng(2).normal(size=(80, 2, 6, 6)).astype(np.float32)
    built, *_ = paired(model, x)
    bad = x[:2].copy()
    bad[0, 0, 0, 0] = np.nan
    answers = run_named(built, x=bad)
    assert answers["mmbm_flagged"][0]
    assert np.isfinite(answers["logits"]).all()


def test_nodes_agree_where_activations_lie_in_few_directions() -> None:
    # Two directions carry everything: the squares in and beyond the basis nearly cancel.
    rng = np.random.default_rng(0)
    hidden = 300 * np.abs(rng.normal(size=(120, 2)))
    roots = 5 + hidden @ np.abs(rng.normal(size=(2, 24))) + 1e-4 * rng.normal(size=(120, 24))
    summaries = np.square(roots)[None].astype(np.float32)
    evidence, _ = fitted({"act": summaries}, rng.integers(0, CLASSES, 120))
    (found,) = evidence.sites
    exact = found(summaries)
    t = np.sqrt(summaries) * found.scale - found.shift
    p = t @ found.basis
    narrow = (t * t).sum(2, keepdims=True) + (p * p) @ found.curvature
    narrow = narrow + p @ found.slopes + found.offsets
    assert narrow.dtype == np.float32
    assert np.allclose(np.log(np.maximum(narrow, 1e-2)), np.log(exact), atol=0.02)
