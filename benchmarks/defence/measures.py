"""What is measured, in percent, from ONNX Runtime's answers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from sklearn.metrics import roc_auc_score

from benchmarks.defence.victims import Trained

_BATCH = 500

Answers = dict[str, np.ndarray]
Figures = dict[str, float | None]


def answers(model: Path | bytes, x: np.ndarray) -> Answers:
    """All outputs of a model on one thread, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (source,) = session.get_inputs()
    runs = [
        session.run(None, {source.name: x[start : start + _BATCH]})
        for start in range(0, len(x), _BATCH)
    ]
    return {name: np.concatenate(parts) for name, *parts in zip(names, *runs, strict=True)}


def measure(trained: Trained, model: Path | bytes) -> tuple[Figures, Answers, Answers | None]:
    """ACC, ASR and RA of a model; ASR and RA are None where there is no attack.

    Returns:
        Figures, answers to the clean test part, and answers to triggered samples.
    """
    x, y = trained.test
    clean = answers(model, x)
    figures: Figures = {"acc": percent(clean["logits"].argmax(1) == y), "asr": None, "ra": None}
    if trained.triggered is None:
        return figures, clean, None
    images, truth, target = trained.triggered
    attacked = answers(model, images)
    decided = attacked["logits"].argmax(1)
    figures |= {"asr": percent(decided == target), "ra": percent(decided == truth)}
    return figures, clean, attacked


def detection(trained: Trained, clean: Answers, attacked: Answers | None) -> Figures:
    """FPR, and for attacks TPR and ROC-AUC of the score, both of triggers that work."""
    found: Figures = {"fpr": percent(clean["mmbm_flagged"]), "tpr": None, "auc": None}
    if attacked is None or trained.triggered is None:
        return found
    works = attacked["mmbm_suspected_class"] == trained.triggered[2]
    if works.any():
        scores = np.concatenate([clean["mmbm_score"], attacked["mmbm_score"][works]])
        kinds = np.concatenate([np.zeros(len(clean["mmbm_score"])), np.ones(int(works.sum()))])
        auc = 100 * float(roc_auc_score(kinds, scores))
        found |= {"tpr": percent(attacked["mmbm_flagged"][works]), "auc": round(auc, 2)}
    return found


def der(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Defence effectiveness rate, percent: half of (fall of ASR - fall of ACC + 100)."""
    if before["asr"] is None:
        return None
    gain = max(0.0, before["asr"] - after["asr"])
    loss = max(0.0, before["acc"] - after["acc"])
    return round((gain - loss + 100) / 2, 2)


def percent(hits: np.ndarray) -> float:
    """Share of True, in percent."""
    return round(100 * float(np.mean(hits)), 2)
