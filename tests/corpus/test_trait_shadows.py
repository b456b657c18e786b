"""Every trait with a detector whose bounded branch is a shadow, where it can be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from traits import TRAITS

from mmbm_onnx.errors import OptionError
from mmbm_onnx.evaluation.compare import rows_that_differ
from mmbm_onnx.evaluation.defence import detector_bounds
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning.fit import Learned
from mmbm_onnx.pipeline.pairing import Paired, Pairing
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.shadowing import Shadowing
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.types import Bounds, Samples

# Those that are float with --shadow auto, and why (in part).
FLOAT = {
    "initializers that are inputs, IR 3": "IR version 3",
    "float16 throughout": "is not float32",
    "float16 within float32": "weights are not all float32",
    "float64 throughout": "is not float32",
    "text: tokens that are looked up": "is not float32",
    "text: a fixed batch": "is not float32",
    "text: token and position, padding masked": "is not float32",
    "text: two look-ups of the same tokens": "is not float32",
    "text: one-hot tokens": "is not float32",
    "text: one-hot by comparison": "is not float32",
    "images of uint8, cast in the graph": "is not float32",
    "Relus in the branches of an If": "subgraphs",
    "a Loop before activations": "subgraphs",
}
SURE = (
    "weights in Constant nodes",
    "BatchNormalization that is not folded",
    "a softmax head",
    "a fixed batch of four",
    "a perceptron by Gemm",
    "signals along one axis",
)


def paired(name: str, shadow: Any, clean: int = 200) -> tuple[Paired, Any]:
    known = TRAITS[name]
    proto, _ = inline_activation_functions(known.build())
    face = find_interface(proto, logits_name=known.logits)
    sites = find_sites(proto, logits=face.logits).sites
    rng = np.random.default_rng(0)
    bounds = Bounds(
        {
            s.tensor: rng.uniform(0.2, 0.5, () if s.channels is None else s.channels).astype("f4")
            for s in sites
        }
    )
    x = known.samples(clean + 80)
    run = Runner(face, None, 1, 50)
    fit, calibration = Samples(x[:clean:2]), Samples(x[1:clean:2])
    hardened = insert_bounds(proto, sites, bounds)
    answers = run.answers(proto, calibration.x), run.answers(hardened, calibration.x)
    learned = Learned(bounds, [], len(fit))
    shadowing = Shadowing(shadow, proto, face, sites, None)
    pairing = Pairing(
        run, proto, face, sites, learned, fit, calibration, 0, {}, shadowing=shadowing
    )
    made = pairing.pair(*answers, 0.05, "evidence")
    fresh = x[clean:]
    before, verdicts = run.answers(proto, fresh), run.verdicts(made.detector, fresh)
    shared = {output: verdicts.outputs[output] for output in before.outputs}
    assert not (rows_that_differ(before.outputs, shared) & ~verdicts.flagged).any()
    return made, detector_bounds(proto, hardened, made.detector, face)


@pytest.mark.parametrize("name", TRAITS)
def test_auto_is_folded_or_says_why_not(name: str) -> None:
    made, gate = paired(name, "auto")
    assert gate.passed, gate
    if name in FLOAT:
        assert made.shadow is None and FLOAT[name] in made.no_shadow
    else:
        assert made.shadow == "folded" and made.no_shadow == ""


@pytest.mark.parametrize("name", TRAITS)
def test_int8_is_made_or_told_why_not_in_advance(name: str) -> None:
    try:
        made, gate = paired(name, "int8")
    except OptionError as error:
        assert "no int8 branch: " in str(error) and "use --shadow auto" in str(error)
        assert name not in SURE
    else:
        assert gate.passed, gate
        assert made.shadow == "int8"
        assert name not in FLOAT


@pytest.mark.parametrize("kind", ["int8", "half"])
@pytest.mark.parametrize("name", SURE)
def test_what_is_asked_for_is_made(name: str, kind: str) -> None:
    made, gate = paired(name, kind)
    assert made.shadow == kind and made.no_shadow == ""
    assert gate.passed, gate
