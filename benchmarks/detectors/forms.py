"""Detectors of one victim: the same bounds, in one stage and two, in float and int8."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

import mmbm_onnx
from benchmarks.defence import measures, victims
from benchmarks.defence.victims import Trained, Victim
from benchmarks.latency.graphs import goes_on
from mmbm_onnx.errors import RewriteError
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.types import Choice, ShadowChoice

CLEAN = 500
_RATE = 0.01
FULL = "one stage"
FORMS: dict[str, tuple[Choice, ShadowChoice]] = {
    FULL: ("never", "float"),
    "two stages": ("always", "float"),
    "one stage, int8": ("never", "int8"),
    "two stages, int8": ("always", "int8"),
}


def measure(victim: Victim, store: Path) -> dict[str, Any]:
    """Figures of each form, in percent, on one thread; bounds are learned once.

    Returns:
        ``victim``, ``original``, and by form ``acc``, ``asr``, ``ra``, ``der``, ``fpr``, ``tpr``,
        ``auc``; ``odd``, the share of clean test samples that go on to the second stage, where
        there are two; ``poor``, whether the branch decides less than 98 % of the calibration part
        as the hardened graph does, in int8. Or ``refused``, why there is no such detector.
    """
    trained = victims.make(victim, store)
    original, _, _ = measures.measure(trained, trained.model)
    record: dict[str, Any] = {"victim": victim.label, "attack": victim.attack, "original": original}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "learned"
        for name, (cascade, shadow) in FORMS.items():
            try:
                record[name] = _form(trained, original, state, cascade, shadow)
            except RewriteError as error:
                record[name] = {"refused": str(error)}
    return record


def _form(
    trained: Trained,
    original: measures.Figures,
    state: Path,
    cascade: Choice,
    shadow: ShadowChoice,
) -> dict[str, Any]:
    x, y = (part[:CLEAN] for part in trained.clean)
    result = mmbm_onnx.harden(
        trained.model,
        (x, y),
        cascade=cascade,
        shadow=shadow,
        false_positive_rate=_RATE,
        seed=trained.victim.seed,
        threads=1,
        checkpoint=state,
        checkpoint_every=0,
        resume=True,  # the second form and the others go on where learning ended
    )
    assert result.detector is not None
    detector = result.detector.SerializeToString()
    figures, clean, attacked = measures.measure(trained, detector)
    found: dict[str, Any] = figures | measures.detection(trained, clean, attacked)
    found["der"] = measures.der(original, figures)
    if cascade == "always":
        interface = find_interface(onnx.load(trained.model))
        odd = goes_on(result.detector, interface, trained.test[0])
        found["odd"] = measures.percent(odd)
    if shadow == "int8":
        found["poor"] = any("int8 branch decides only" in line for line in result.warnings)
    return found
