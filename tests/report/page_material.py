"""What pages are drawn from in tests: reports and arrays made up, or made by a small job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from test_json_report import report

from mmbm_onnx.evaluation.details import Details, Inputs, Scores, Shown
from mmbm_onnx.graph.flow import Flow
from mmbm_onnx.report.html.material import Material, RecoveredTrigger, ScanOutcome, SiteDetail
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.types import Interface

PIXELS = {
    "scale": 1 / 255,
    "mean": [],
    "std": [],
    "resize": None,
    "crop": None,
    "resample": "bilinear",
    "channel_order": "rgb",
    "layout": "auto",
    "notes": [],
}


def inputs(shape: tuple[int | None, ...] = (None, 1, 8, 8), **settings: Any) -> Inputs:
    """Of images with pixels from 0 to 1, unless the settings say otherwise."""
    interface = Interface("x", np.dtype(np.float32), shape, None, "logits", "logits", 3)
    return Inputs(interface, {**PIXELS, **settings}, 0.0, 1.0, ("cat", "dog", "1"))


def scores(count: int, seed: int, middle: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(middle, 1, count).astype(np.float32)


def shown(x: np.ndarray) -> Shown:
    count = len(x)
    return Shown(
        x=x,
        original=np.full(count, 1),
        answered=np.arange(count) % 3,
        truth=np.arange(count) % 3,
        p_value=np.linspace(0.001, 0.5, count).astype(np.float32),
        flagged=np.arange(count) == 0,
    )


def images(count: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, *shape)).astype(np.float32)


def material(**changes: Any) -> Material:
    """Fits ``test_json_report.report()``: one bounded activation, ``act``, and ``t`` without."""
    detail = SiteDetail(
        np.array([0.5, 1.0, 1.0], np.float32),
        np.array([0.9, 0.8, 2.0], np.float32),
        np.array([0.25, 0.0, 0.5]),
    )
    made = Material(
        inputs=inputs(),
        flow=Flow(("x", "act", "t", "logits"), ((0, 1), (0, 2), (1, 2), (2, 3))),
        sites={"act": detail},
        null=fit_null(scores(200, 1), 0.01, steady=True),
        odd=shown(images(4)),
    )
    return replace(made, **changes)


def scanned(*triggers: RecoveredTrigger) -> ScanOutcome:
    suspected = tuple(one.class_index for one in triggers if one.suspected)
    return ScanOutcome(judged=True, suspected=suspected, triggers=triggers)


def trigger(shape: tuple[int, ...] = (1, 8, 8), count: int = 3, **changes: Any) -> RecoveredTrigger:
    pattern = np.zeros(shape, np.float32)
    pattern.reshape(-1)[-3:] = 0.25
    before = images(count, shape, seed=5)
    made = RecoveredTrigger(
        class_index=1,
        pattern=pattern,
        before=before,
        after=np.clip(before + pattern, 0, 1),
        flipped_share=0.875,
        size=0.0321,
        decided_before=np.zeros(count, np.int64),
        decided_after=np.ones(count, np.int64),
    )
    return replace(made, **changes)


def details(**changes: Any) -> Details:
    clean, attacked = scores(300, 2), scores(200, 3, 6.0)
    made = Details(
        inputs=inputs(),
        scores=Scores(
            clean, np.linspace(0.002, 1, 300), attacked, np.full(200, 0.001), float(clean.max())
        ),
        odd=shown(images(4)),
        triggered=shown(images(6, seed=9)),
    )
    return replace(made, **changes)


def failed_report() -> dict[str, Any]:
    told = report()
    gate = told["gates"][0]
    gates = [{**gate, "passed": False, "value": 0.5, "message": "accuracy 50%"}, *told["gates"][1:]]
    return {**told, "passed": False, "gates": gates}
