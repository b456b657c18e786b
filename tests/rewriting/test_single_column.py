"""A detector of a model with a single logit, against the same model with two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rewriting_helpers import interface, parse, run_named, site

from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.types import DETECTOR_OUTPUTS, Bounds

KINDS = {"float": np.float32, "float16": np.float16, "double": np.float64}
NULL = fit_null(np.random.default_rng(5).integers(-8, 8, 399).astype(np.float32), 0.2)


@pytest.mark.parametrize(
    "tail", ["y = Sigmoid (z)", "y = Identity (z)", "s = Squeeze (z, one) y = Sigmoid (s)"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_it_decides_as_one_of_two_logits_does(kind: str, tail: str) -> None:
    head = "logit" if "Sigmoid" not in tail else "sigmoid"
    shape = "N" if "Squeeze" in tail else "N, 1"
    dtype = KINDS[kind]
    w = np.asarray([[2], [-1], [1], [-2]], dtype)
    text = f"""g ({kind}[N, 4] x) => ({kind}[{shape}] y) <int64[1] one = {{1}}> {{
        act = Relu (x) z = MatMul (act, w) {tail} }}"""
    single = parse(text, w=w)
    pair = parse(
        f"g ({kind}[N, 4] x) => ({kind}[N, 2] y) {{ act = Relu (x) y = MatMul (act, w) }}",
        w=np.concatenate([-w / 2, w / 2], 1),
    )
    bounds = Bounds({"act": np.asarray([3, 6, 9, 4], np.float32)})
    where = [site("act", 4, dtype=dtype)]
    face = replace(interface(2, dtype=dtype), output="y", logits="z", head=head)
    built = build_detector(single, face, where, bounds, NULL)
    check_written(built)
    check_signature(single, built, DETECTOR_OUTPUTS)
    two = replace(face, logits="y", head="logits")
    reference = build_detector(pair, two, where, bounds, NULL)

    x = np.random.default_rng(0).integers(-4, 15, (500, 4)).astype(dtype)
    found, wanted = run_named(built, x=x), run_named(reference, x=x)
    for name in DETECTOR_OUTPUTS:
        assert np.array_equal(found[name], wanted[name]), name
    flagged = found["mmbm_flagged"]
    assert 0.05 < flagged.mean() < 0.9
    plain = run_named(single, x=x)["y"]
    assert np.array_equal(found["y"][~flagged], plain[~flagged])
    middle = 0.5 if head == "sigmoid" else 0
    positive = found["y"].reshape(-1) > middle
    assert np.array_equal(positive, found["mmbm_corrected_class"] == 1)
    assert (positive[flagged] != (plain.reshape(-1) > middle)[flagged]).all()
