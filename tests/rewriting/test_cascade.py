"""The detector in two stages, against numpy and the graph whose bounded branch always runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from packaging.version import Version
from rewriting_helpers import interface, parse, random_bounds, relu_sites, run_named, serialized

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.cascade import build_cascade
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector, build_probe
from mmbm_onnx.rewriting.evidence import Evidence, fit_evidence
from mmbm_onnx.rewriting.null import Null, fit_null, p_values
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds, Interface, Site

HEADS = {
    "logits": "",
    "softmax": "y = Softmax(logits)",
    "class": "y = ArgMax <axis = 1, keepdims = 0> (logits)",
    "mask": "twice = Add(logits, logits) y = Greater(twice, logits)",
}
TEXT = """
    net ({t}[{n}, 2, 6, 6] x) => ({t}[{n}, 3] logits{more}) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, w1)
        first = Relu(a)
        b = Conv <pads = [1, 1, 1, 1]> (first, w2)
        sum = Add(b, first)
        second = Relu(sum)
        c = GlobalAveragePool(second)
        flat = Flatten(c)
        d = MatMul(flat, w3)
        third = Relu(d)
        logits = MatMul(third, w4)
        {head}
    }}
"""
TYPES = {"float": np.float32, "float16": np.float16}
OUTPUT = {"softmax": "{t}[{n}, 3] y", "class": "int64[{n}] y", "mask": "bool[{n}, 3] y"}


def network(
    kind: str = "float", head: str = "logits", opset: int = 17, batch: str = "N"
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w1": (5, 2, 3, 3), "w2": (5, 5, 3, 3), "w3": (5, 6), "w4": (6, 3)}
    weights = {n: rng.normal(0, 0.4, s).astype(TYPES[kind]) for n, s in shapes.items()}
    further = OUTPUT.get(head, "").format(t=kind, n=batch)
    text = TEXT.format(
        t=kind,
        n=batch,
        more=f", {further}" if further else "",
        head=HEADS[head].format(t=kind),
    )
    return parse(text, opset=opset, **weights)


@dataclass(frozen=True)
class Case:
    """A model with bounds and evidence, and numpy's account of it."""

    model: onnx.ModelProto
    face: Interface
    sites: list[Site]
    bounds: Bounds
    evidence: Evidence
    clean: np.ndarray  # cross-fitted scores of one stage
    firsts: np.ndarray

    def look(
        self, x: np.ndarray
    ) -> tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        probe, outputs = build_probe(
            self.model, self.face, self.sites, self.bounds, summaries="original"
        )
        answers = run_named(probe, x=x)
        summaries = {tensor: answers[name].transpose(1, 0, 2) for tensor, name in outputs.items()}
        logits = run_named(self.model, x=x)["logits"].astype(np.float32)
        low, high = np.sort(logits)[:, -2:].T
        return summaries, answers["mmbm_suspected_class"], answers["mmbm_score"], high - low

    def scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        summaries, classes, margins, originals = self.look(x)
        first = self.evidence.firsts(summaries, classes, originals)
        return first, self.evidence.scores(summaries, classes, margins)

    def built(self, null: Null, gate: float) -> onnx.ModelProto:
        before = serialized(self.model)
        parts = self.model, self.face, self.sites, self.bounds
        proto = build_cascade(*parts, null, self.evidence, gate)
        assert serialized(self.model) == before
        check_written(proto)
        check_signature(self.model, proto, DETECTOR_OUTPUTS)
        return proto


def case(kind: str = "float", head: str = "logits", opset: int = 17) -> Case:
    model = network(kind, head, opset)
    sites = relu_sites(model)
    bounds = random_bounds(sites, np.random.default_rng(1), 0.2, 0.6)
    face = interface(3, dtype=TYPES[kind])
    blank: Any = None
    made = Case(model, face, sites, bounds, blank, blank, blank)
    x = inputs(80, 2, kind)
    found = fit_evidence(
        *made.look(x),
        right=np.ones(len(x), bool),
        learned_on=np.zeros(len(x), bool),
        classes=3,
        seed=0,
    )
    assert found is not None
    return Case(model, face, sites, bounds, found.evidence, found.scores, found.firsts)


def inputs(count: int, seed: int, kind: str = "float", scale: float = 1.0) -> np.ndarray:
    values = scale * np.random.default_rng(seed).normal(size=(count, 2, 6, 6))
    return values.astype(TYPES[kind])


def gated(made: Case, share: float = 0.3, rate: float = 0.1) -> tuple[Null, float]:
    gate = float(np.quantile(made.firsts, 1 - share).astype(np.float32))
    scores = np.where(made.firsts < gate, made.firsts, made.clean)
    return fit_null(scores, rate), gate


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_scores_are_numpys(opset: int) -> None:
    made = case(opset=opset)
    null, gate = gated(made)
    x = inputs(120, 3, scale=1.3)
    first, second = made.scores(x)
    expected = np.where(first < gate, first, second)
    answers = run_named(made.built(null, gate), x=x)
    certain = np.abs(first - gate) > 1e-3
    assert certain.sum() > 100
    assert np.allclose(answers["mmbm_score"][certain], expected[certain], rtol=1e-3, atol=2e-4)
    went_on = certain & (first >= gate)
    assert 10 < went_on.sum() < 110
    assert np.abs(first - second)[went_on].max() > 0.05
    assert (answers["mmbm_flagged"] == (answers["mmbm_score"] > np.float32(null.threshold))).all()
    assert 0 < answers["mmbm_flagged"].sum() < 100
    assert np.allclose(answers["mmbm_p_value"], p_values(null, answers["mmbm_score"]), atol=1e-6)


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("head", list(HEADS))
def test_answers_are_the_originals_or_those_of_the_bounded_branch(kind: str, head: str) -> None:
    made = case(kind, head)
    null, gate = gated(made)
    x = inputs(120, 3, kind, 1.3)
    answers = run_named(made.built(null, gate), x=x)
    plain = run_named(made.model, x=x)
    flagged = answers["mmbm_flagged"]
    assert 0 < flagged.sum() < 100
    # One that flags everything tells what each answer is once it is flagged.
    always = fit_null(np.full(9, -1e6, np.float32), 0.5)
    parts = made.model, made.face, made.sites, made.bounds
    full = run_named(build_detector(*parts, always, made.evidence), x=x)
    assert full["mmbm_flagged"].all()
    for name, values in plain.items():
        assert answers[name].dtype == values.dtype
        assert answers[name].shape == values.shape
        assert np.array_equal(answers[name][~flagged], values[~flagged])
        tolerance = 1e-2 if kind == "float16" else 1e-4
        same = np.isclose(
            answers[name][flagged].astype(np.float64),
            full[name][flagged].astype(np.float64),
            rtol=tolerance,
            atol=tolerance,
        )
        assert same.mean() > 0.97
    assert np.array_equal(answers["mmbm_suspected_class"], plain["logits"].argmax(1))
    changed = answers["mmbm_corrected_class"]
    assert np.array_equal(changed[~flagged], plain["logits"].argmax(1)[~flagged])
    assert (changed[flagged] == full["mmbm_corrected_class"][flagged]).mean() > 0.97


def executed(proto: onnx.ModelProto, x: np.ndarray, folder: Path) -> set[str]:
    """Names of the nodes that ran."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    return {event["name"] for event in events if event.get("cat") == "Node"}


def test_the_bounded_branch_runs_for_odd_samples_alone(tmp_path: Path) -> None:
    made = case()
    x = inputs(40, 3)
    first, _ = made.scores(x)
    order = np.argsort(first)
    gate = float(first[order[20]])
    null = fit_null(np.full(9, gate + 100, np.float32), 0.5)
    proto = made.built(null, gate)
    below, above = x[order[:20]], x[order[20:]]
    assert not any("mmbm_bounded/" in name for name in executed(proto, below, tmp_path))
    assert any("mmbm_bounded/" in name for name in executed(proto, above, tmp_path))
    answers = run_named(proto, x=below)
    assert not answers["mmbm_flagged"].any()
    assert np.array_equal(answers["logits"], run_named(made.model, x=below)["logits"])


def test_what_is_no_number_goes_on_and_is_flagged() -> None:
    made = case()
    x = inputs(6, 3, scale=0.1)
    x[2, 0, 0, 0] = np.nan
    x[4, 1, 3, 3] = np.inf
    null = fit_null(np.full(9, 1e6, np.float32), 0.5)
    answers = run_named(made.built(null, 1e6), x=x)
    assert answers["mmbm_flagged"].tolist() == [False, False, True, False, True, False]
    assert np.isfinite(answers["logits"]).all()


def test_every_size_of_batch_is_taken() -> None:
    made = case()
    null, gate = gated(made)
    proto = made.built(null, gate)
    x = inputs(50, 3, scale=1.3)
    whole = run_named(proto, x=x)
    for name, values in whole.items():
        for place in (0, 7, 49):
            one = run_named(proto, x=x[place : place + 1])[name]
            assert np.allclose(one[0], values[place], rtol=1e-4, atol=1e-4), name
    # ONNX Runtime before 1.32 multiplies no batch of zero samples by a vector.
    if Version(ort.__version__) >= Version("1.32"):
        assert run_named(proto, x=x[:0])["mmbm_flagged"].shape == (0,)


def test_weights_are_stored_once() -> None:
    made = case()
    null, gate = gated(made)
    proto = made.built(null, gate)
    names = {tensor.name for tensor in made.model.graph.initializer}
    (choice,) = [node for node in proto.graph.node if node.op_type == "If"]
    for attribute in choice.attribute:
        assert not names & {tensor.name for tensor in attribute.g.initializer}
        assert all(tensor.raw_data != w.raw_data for tensor in attribute.g.initializer
                   for w in made.model.graph.initializer)  # fmt: skip


def test_what_cannot_be_done_in_two_stages_is_refused() -> None:
    made = case()
    null, gate = gated(made)
    parts = made.sites, made.bounds
    with pytest.raises(RewriteError, match="fixed batch"):
        build_cascade(network(batch="4"), interface(3, batch=4), *parts, null, made.evidence, gate)
    with pytest.raises(RewriteError, match="opset 11"):
        build_cascade(network(opset=10), made.face, *parts, null, made.evidence, gate)
    with pytest.raises(RewriteError, match="below the gate"):
        build_cascade(made.model, made.face, *parts, null, made.evidence, null.threshold + 1)
