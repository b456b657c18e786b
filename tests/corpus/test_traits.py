"""Every trait, from file to hardened graph and detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from binding import binding_bounds
from large import save_outside, treat_as_large
from traits import TRAITS, repeated

from mmbm_onnx.errors import ModelError
from mmbm_onnx.evaluation.compare import rows_that_differ
from mmbm_onnx.evaluation.predictions import predict, predict_detector
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import check_parity, relative_difference
from mmbm_onnx.graph import inference, scopes
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.mapped import mapped
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.read import read_model
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.walk import standard_opset
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.pipeline.pairing import Pairing
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.runtime.batches import run_logits
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds, Samples

SAMPLES = 40


@pytest.mark.parametrize("name", TRAITS)
def test_it_is_read_executed_bounded_and_paired(name: str, tmp_path: Path) -> None:
    known = TRAITS[name]
    onnx.save(known.build(), tmp_path / "model.onnx")
    original = read_model(tmp_path / "model.onnx").proto
    onnx.checker.check_model(original, full_check=True)
    proto, _ = inline_activation_functions(original)
    face = find_interface(proto, logits_name=known.logits)
    report = find_sites(proto, logits=face.logits)
    sites = report.sites
    assert (len(sites), len(report.uncovered)) == (known.sites, known.uncovered), report

    x = known.samples(SAMPLES)
    classifier = Classifier(proto, face, sites)
    check_parity(classifier, proto, x)
    wide = torch.from_numpy(x)
    with torch.no_grad():
        plain, values = classifier.logits(wide, taps=[site.tensor for site in sites])
    bounds = binding_bounds(sites, values)

    leaves = {name: bound.clone().requires_grad_() for name, bound in bounds.items()}
    bounded = classifier.logits(wide, leaves)
    assert relative_difference(bounded.detach().numpy(), plain.numpy()) > 1e-2
    check_gradients(classifier, wide, leaves)

    arrays = Bounds({name: bound.float().numpy() for name, bound in bounds.items()})
    hardened = insert_bounds(proto, sites, arrays)
    check_written(hardened)
    check_signature(proto, hardened)
    session = Session(with_outputs(hardened, [face.logits]), threads=1)
    found = run_logits(session, face, x)
    assert relative_difference(found, bounded.detach().numpy()) <= known.tolerance

    for depthwise in (True, False):
        folded = fold_bounds(proto, sites, arrays, depthwise=depthwise, unscaled=(face.logits,))
        assert sorted([*folded.folded, *folded.kept]) == sorted(arrays)
        if depthwise:
            assert len(folded.folded) == (len(sites) if known.folded is None else known.folded)
        check_written(folded.proto)
        check_signature(proto, folded.proto, folded=True)
        session = Session(with_outputs(folded.proto, [face.logits]), threads=1)
        again = run_logits(session, face, x)
        assert relative_difference(again, found) <= 1e-5

    before = predict(Session(original, threads=1), face, x)
    null = fit_null(np.linspace(-1, 2, 99).astype(np.float32), 0.3)
    detector = build_detector(proto, face, sites, arrays, null)
    check_written(detector)
    check_signature(proto, detector, DETECTOR_OUTPUTS)
    verdicts = predict_detector(Session(detector, threads=1), face, x)
    kept = ~verdicts.flagged
    assert kept.any()
    assert np.array_equal(verdicts.outputs[face.output][kept], before.outputs[face.output][kept])
    assert np.array_equal(verdicts.suspected, before.classes)
    assert (verdicts.classes[~kept] != before.classes[~kept]).all()


@pytest.mark.parametrize("name", TRAITS)
def test_its_detector_goes_by_evidence_in_two_stages(name: str) -> None:
    known = TRAITS[name]
    proto, _ = inline_activation_functions(known.build())
    face = find_interface(proto, logits_name=known.logits)
    sites = find_sites(proto, logits=face.logits).sites
    bounds = Bounds({site.tensor: np.full((), 0.3, np.float32) for site in sites})
    x = known.samples(5 * SAMPLES)
    run = Runner(face, None, 1, 50)
    fit, calibration = Samples(x[::2]), Samples(x[1::2])
    hardened = insert_bounds(proto, sites, bounds)
    answers = run.answers(proto, calibration.x), run.answers(hardened, calibration.x)
    pairing = Pairing(
        run, proto, face, sites, Learned(bounds, [], len(fit)), fit, calibration, 0, {}
    )
    paired = pairing.pair(*answers, 0.05, "evidence")
    assert (paired.score, paired.read) == ("evidence", "original"), paired.warnings
    opset = standard_opset(proto.opset_import)
    assert opset is not None
    assert (paired.odd is not None) == (face.batch is None and opset >= 11)

    fresh = known.samples(7 * SAMPLES)[5 * SAMPLES :]
    before, verdicts = run.answers(proto, fresh), run.verdicts(paired.detector, fresh)
    assert 0 < verdicts.flagged.sum() <= 16  # of 80; 4 is what was asked for
    shared = {output: verdicts.outputs[output] for output in before.outputs}
    assert not (rows_that_differ(before.outputs, shared) & ~verdicts.flagged).any()
    assert np.array_equal(verdicts.suspected, before.classes)


@pytest.mark.parametrize("name", TRAITS)
def test_its_weights_may_stay_in_their_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TRAITS[name]
    proto, _ = inline_activation_functions(known.build())
    # Smaller tensors may be shapes, whose values are needed to infer others.
    treat_as_large(monkeypatch, least=256)
    for module in (inference, scopes):
        monkeypatch.setattr(module, "KEPT", 8)
    model = read_model(save_outside(proto, tmp_path / "model.onnx")).proto
    if not mapped(model):
        pytest.skip("no initializer of 256 bytes in the main graph")
    face = find_interface(model, logits_name=known.logits)
    sites = find_sites(model, logits=face.logits).sites
    assert sites == find_sites(proto, logits=face.logits).sites
    x = known.samples(SAMPLES)
    check_parity(Classifier(model, face, sites), model, x)

    bounds = Bounds({site.tensor: np.full((), 0.1, np.float32) for site in sites})
    null = fit_null(np.linspace(-1, 2, 99).astype(np.float32), 0.3)
    for rewrite in (
        lambda given: insert_bounds(given, sites, bounds),
        lambda given: build_detector(given, face, sites, bounds, null),
    ):
        light, whole = rewrite(model), rewrite(proto)
        check_written(light)
        assert len(mapped(light)) == len(mapped(model))
        answers = [
            run_logits(Session(with_outputs(each, [face.logits]), threads=1), face, x)
            for each in (light, whole)
        ]
        assert relative_difference(*answers) <= known.tolerance


def check_gradients(
    classifier: Classifier, x: torch.Tensor, leaves: dict[str, torch.Tensor]
) -> None:
    """Autograd's slope along a random direction is the one that finite differences find."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(classifier.logits(x).shape, generator=generator)

    def value(step: float) -> torch.Tensor:
        moved = {name: leaf + step * ways[name] for name, leaf in leaves.items()}
        return (classifier.logits(x, moved) * weights).sum().double()

    ways = {
        name: leaf.detach() * torch.rand(leaf.shape, generator=generator)
        for name, leaf in leaves.items()
    }
    gradients = torch.autograd.grad(value(0.0), list(leaves.values()))
    slope = sum(
        float((gradient * ways[name]).sum())
        for (name, _), gradient in zip(leaves.items(), gradients, strict=True)
    )
    with torch.no_grad():
        measured = float(value(1e-3) - value(-1e-3)) / 2e-3
    assert slope == pytest.approx(measured, rel=0.05, abs=0.02)
    assert all(bool((gradient != 0).any()) for gradient in gradients)


def test_repeated_node_names_are_what_onnx_runtime_itself_refuses() -> None:
    with pytest.raises(
        ModelError, match=r"two nodes with same node name.*give its nodes different"
    ):
        Session(repeated(), threads=1)
