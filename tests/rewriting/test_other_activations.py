"""Activations other than Relu, with their negative side: bounded, paired, learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rewriting_helpers import interface, parse, random_bounds, run_named

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector, build_probe
from mmbm_onnx.rewriting.evidence import fit_evidence
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.types import DETECTOR_OUTPUTS

NETWORK = """
    net (float[N, 2, 6, 6] x) => (float[N, 3] logits)
    <float half = {{0.5}}, float one = {{1.0}}, float root = {{1.41421356}}, float three = {{3.0}},
     float zero = {{0.0}}, float six = {{6.0}},
     float[7, 1, 1] slope = {{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}}> {{
        c = Conv <pads = [1, 1, 1, 1]> (x, w1)
        {body}
        pooled = GlobalAveragePool(act)
        flat = Flatten(pooled)
        logits = MatMul(flat, w2)
    }}
"""
# Opset, nodes from c to act, kind.
FORMS = {
    "leaky": (9, "act = LeakyRelu <alpha = 0.2> (c)", "LeakyRelu"),
    "prelu": (9, "act = PRelu (c, slope)", "PRelu"),
    "elu": (9, "act = Elu (c)", "Elu"),
    "selu": (9, "act = Selu (c)", "Selu"),
    "celu": (12, "act = Celu (c)", "Celu"),
    "softplus": (9, "act = Softplus (c)", "Softplus"),
    "thresholded": (10, "act = ThresholdedRelu <alpha = 0.1> (c)", "ThresholdedRelu"),
    "mish": (18, "act = Mish (c)", "Mish"),
    "hard swish": (14, "act = HardSwish (c)", "HardSwish"),
    "gelu": (20, "act = Gelu (c)", "Gelu"),
    "swish": (9, "s = Sigmoid (c) act = Mul (c, s)", "Swish"),
    "gelu by hand": (
        9,
        "d = Div (c, root) e = Erf (d) f = Add (e, one) m = Mul (c, f) act = Mul (m, half)",
        "Gelu",
    ),
    "hard swish by hand": (
        11,
        "a = Add (c, three) k = Clip (a, zero, six) m = Mul (c, k) act = Div (m, six)",
        "HardSwish",
    ),
    "elu by hand": (
        9,
        "g = Greater (c, zero) x1 = Exp (c) x2 = Sub (x1, one) act = Where (g, c, x2)",
        "Elu",
    ),
    "relu by max": (9, "act = Max (c, zero)", "Relu"),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_bounded_and_paired(form: str) -> None:
    opset, body, kind = FORMS[form]
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.6, (7, 2, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 1, (7, 3)).astype(np.float32),
    }
    model = parse(NETWORK.format(body=body), opset=opset, **weights)
    sites = find_sites(model, logits="logits").sites
    assert [(site.tensor, site.kind, site.channels) for site in sites] == [("act", kind, 7)]
    face = interface(3)
    x = rng.normal(size=(80, 2, 6, 6)).astype(np.float32)
    bounds = random_bounds(sites, rng, 0.2, 0.6)
    hardened = insert_bounds(model, sites, bounds)
    check_written(hardened)
    check_signature(model, hardened)
    bounded = run_named(hardened, x=x)["logits"]
    plain = run_named(model, x=x)["logits"]
    assert not np.allclose(bounded, plain, atol=1e-2)

    classifier = Classifier(model, face, sites)
    leaves = {name: torch.from_numpy(bound).requires_grad_() for name, bound in bounds.items()}
    logits = classifier.logits(torch.from_numpy(x), leaves)
    assert np.allclose(bounded, logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), list(leaves.values()))
    assert (gradient != 0).all()

    probe, outputs = build_probe(model, face, sites, bounds)

    def look(values: np.ndarray):
        answers = run_named(probe, x=values)
        summaries = {name: answers[out].transpose(1, 0, 2) for name, out in outputs.items()}
        return summaries, answers["mmbm_suspected_class"], answers["mmbm_score"]

    every = np.ones(len(x), bool)
    found = fit_evidence(*look(x), right=every, learned_on=~every, classes=3, seed=0)
    assert found is not None
    evidence, scores = found.evidence, found.scores
    (summary,) = look(x)[0].values()
    assert evidence.sites[0].signed == (summary < 0).any()
    assert evidence.sites[0].signed or kind not in ("LeakyRelu", "PRelu", "Elu", "Selu", "Celu")
    built = build_detector(model, face, sites, bounds, fit_null(scores, 0.1), evidence)
    check_written(built)
    check_signature(model, built, DETECTOR_OUTPUTS)
    other = (1.5 * rng.normal(size=x.shape)).astype(np.float32)
    answers = run_named(built, x=other)
    assert np.allclose(answers["mmbm_score"], evidence.scores(*look(other)), rtol=1e-3, atol=1e-3)
    kept = ~answers["mmbm_flagged"]
    assert 0 < kept.sum() < len(x)
    assert np.array_equal(answers["logits"][kept], run_named(model, x=other)["logits"][kept])
