"""Distances and first scores as nodes, against numpy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from rewriting_helpers import parse, run_named

from mmbm_onnx.rewriting.distance_nodes import View, distances
from mmbm_onnx.rewriting.evidence import SMALLEST_DISTANCE, Evidence, fit_evidence
from mmbm_onnx.rewriting.evidence_nodes import first_score
from mmbm_onnx.rewriting.operators import Operators
from mmbm_onnx.rewriting.surgeon import Surgeon

CLASSES = 3


def fitted(shapes: list[tuple[int, int]], signed: list[bool], n: int = 90) -> Evidence:
    """Of sites with these numbers of views and channels."""
    rng = np.random.default_rng(5)
    classes = rng.integers(0, CLASSES, n)
    summaries = {}
    for index, ((views, channels), sign) in enumerate(zip(shapes, signed, strict=True)):
        values = rng.normal(classes[:, None] / 2, 1, (views, n, channels))
        summaries[f"s{index}"] = (values if sign else np.square(values)).astype(np.float32)
    found = fit_evidence(
        summaries,
        classes,
        np.zeros(n, np.float32),
        rng.normal(5, 2, n).astype(np.float32),
        right=np.ones(n, bool),
        learned_on=np.zeros(n, bool),
        classes=CLASSES,
        seed=0,
    )
    assert found is not None
    assert [site.signed for site in found.evidence.sites] == signed
    return found.evidence


def exported(surgeon: Surgeon, output: gs.Tensor) -> onnx.ModelProto:
    surgeon.append_output(
        output, onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None)
    )
    return surgeon.export()


@pytest.mark.parametrize("signed", [[False] * 4, [True] * 4, [False, True, False, True]])
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_distances_are_numpys(opset: int, signed: list[bool]) -> None:
    sites = fitted([(2, 6), (2, 24), (2, 6), (1, 3)], signed).sites
    ranks = {site.basis.shape[2] for site in sites}
    assert len(ranks) > 1  # some are filled up
    views = sorted((View(s, i) for s in sites for i in range(len(s.scale))), key=by_channels)
    model = parse("net (float[N, 75] x) => (float[N, 75] y) { y = Identity(x) }", opset=opset)
    surgeon = Surgeon(model)
    ops = Operators(surgeon, "test/")
    found = exported(surgeon, distances(ops, surgeon.graph.inputs[0], views))
    x = np.random.default_rng(6).normal(size=(7, 75)).astype(np.float32)
    for rows in (x, x[:1], x[:0]):
        (values,) = [v for name, v in run_named(found, x=rows).items() if name != "y"]
        assert values.shape == (len(views), len(rows), CLASSES)
        start = 0
        for place, view in enumerate(views):
            summary = rows[:, start : start + view.channels]
            start += view.channels
            given = np.stack([summary] * len(view.site.scale))
            expected = view.site(given)[view.index]
            found_here = np.maximum(values[place], SMALLEST_DISTANCE)
            assert np.allclose(found_here, expected, rtol=1e-4, atol=1e-4)


def by_channels(view: View) -> int:
    return view.channels


def first_scores(evidence: Evidence) -> onnx.ModelProto:
    text = f"net (float[N, {CLASSES}] x, float[N] u) => (float[N] y) {{ y = Identity(u) }}"
    surgeon = Surgeon(parse(text, opset=13))
    logits, unusual = surgeon.graph.inputs
    ops = Operators(surgeon, "test/")
    return exported(surgeon, first_score(ops, evidence, unusual, logits, CLASSES))


def test_a_first_score_is_of_the_margin_between_the_two_largest() -> None:
    evidence = fitted([(2, 6)], [False])
    assert evidence.first_margin > 0
    rng = np.random.default_rng(7)
    x = rng.normal(0, 100, (9, CLASSES)).astype(np.float32)
    x[0] = 5
    u = rng.normal(size=9).astype(np.float32)
    low, high = np.sort(x)[:, -2:].T
    found = run_named(first_scores(evidence), x=x, u=u)["test/first"]
    expected = u + evidence.first_margin * (high - low) + evidence.first_constant
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("column", range(CLASSES))
def test_a_first_score_is_none_where_one_logit_is_no_number(column: int) -> None:
    proto = first_scores(fitted([(2, 6)], [False]))
    x = np.arange(4 * CLASSES, dtype=np.float32).reshape(4, CLASSES)
    x[2, column] = np.nan
    for rows in (slice(None), slice(2, 3), slice(1, 3)):
        found = run_named(proto, x=x[rows], u=np.zeros(4, np.float32)[rows])["test/first"]
        assert np.array_equal(np.isnan(found), np.arange(4)[rows] == 2)
