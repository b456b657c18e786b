"""Folded, networks of many kinds compute what they do with a Min behind each activation."""

from __future__ import annotations

import pytest
import torch
from architectures import NETWORKS, network
from binding import binding_bounds
from exports import exported

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.parity import relative_difference
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.batches import run_logits
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Bounds

OPSET = 17
# Activations with bounds that are folded, of all; where no depthwise convolution may be put in, one
# less in the residual network.
FOLDED = {
    "mlp": (2, 2),
    "vgg": (3, 3),
    "residual": (5, 5),
    "depthwise": (5, 6),
    "squeeze_excite": (2, 4),
    "inception": (2, 5),
    "shuffle": (2, 5),
    "transformer": (0, 1),
    "convnext": (0, 1),
    "pyramid": (0, 2),
    "audio": (2, 2),
    "volume": (2, 2),
    "recurrent": (0, 1),
}


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_answers_as_with_min(name: str, depthwise: bool) -> None:
    shape = NETWORKS[name][1]
    proto = exported(network(name), torch.randn(2, *shape), OPSET)
    face = find_interface(proto)
    sites = find_sites(proto, logits=face.logits).sites
    x = torch.randn(40, *shape, generator=torch.Generator().manual_seed(3))
    classifier = Classifier(proto, face, sites)
    with torch.no_grad():
        plain, values = classifier.logits(x, taps=[site.tensor for site in sites])
    binding = binding_bounds(sites, values)
    bounds = Bounds({name: bound.numpy() for name, bound in binding.items()})
    folded = fold_bounds(proto, sites, bounds, depthwise=depthwise)
    without = not depthwise and name == "residual"
    assert (len(folded.folded) + without, len(bounds)) == FOLDED[name]
    assert sorted([*folded.folded, *folded.kept]) == sorted(bounds)
    graphs = insert_bounds(proto, sites, bounds), folded.proto
    expected, found = (run_logits(Session(graph, threads=1), face, x.numpy()) for graph in graphs)
    assert relative_difference(expected, plain.numpy()) > 1e-2  # the bounds bind
    assert relative_difference(found, expected) <= 1e-5
