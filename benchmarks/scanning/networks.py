"""The networks that are scanned, and what is kept of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import mmbm_onnx
from benchmarks.defence import attacks, networks, sizes, victims
from benchmarks.defence.victims import Victim
from mmbm_onnx.report.pieces import library_versions

DATASETS = ("mnist", "fashion", "shapes")
SEEDS = (3, 4, 5)
"""Of the clean networks besides those of the defence benchmark."""
_CLEAN = 500


def all_of_them() -> list[Victim]:
    """The defence benchmark's victims, and more clean networks."""
    clean = [
        sizes.victim_of(dataset, network, attacks.CLEAN, seed)
        for seed in SEEDS
        for dataset in DATASETS
        for network in networks.NAMES
    ]
    return [*sizes.every_victim(), *clean]


def scan(victim: Victim, store: Path) -> dict[str, Any]:
    """Scan one network; it is trained first if it is not in the store.

    Returns:
        ``scores`` by test, the largest of any class; ``targets``, the classes that its backdoor
        leads to; ``suspected``, those that the scan suspects, the most suspicious first.
    """
    trained = victims.make(victim, store)
    x, y = (part[:_CLEAN] for part in trained.clean)
    result = mmbm_onnx.scan(trained.model, (x, y), seed=victim.seed, threads=1)
    found = result.report
    targets = [] if trained.triggered is None else np.unique(trained.triggered[2]).tolist()
    return {
        "network": victim.label,
        "dataset": victim.dataset,
        "attack": victim.attack,
        "seed": victim.seed,
        "targets": targets,
        "suspected": list(result.suspected_classes),
        "scores": {test["name"]: test["score"] for test in found["tests"]},
        "seconds": round(sum(found["seconds"].values()), 1),
        "settings": found["settings"],
        "libraries": library_versions(),
    }
