"""One picture of what happened: samples, bounds, and the detector's scores."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import onnxruntime
from attack import TARGET, Images, Labels

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREY = "#3066be", "#d1495b", "#8a8f98"


def draw(out: Path, test: tuple[Images, Labels], triggered: Images) -> None:
    """Write ``figure.png`` from the files in ``out`` and unseen test images."""
    images, labels = test
    report = json.loads((out / "report.json").read_text())
    session = onnxruntime.InferenceSession(
        out / "detector.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def answer(batch: Images) -> dict[str, np.ndarray]:
        feed = {"image": batch[:, None].astype(np.float32) / 255}
        return dict(zip(names, session.run(None, feed), strict=True))

    others = labels != TARGET
    clean, attacked = answer(images), answer(triggered[others])
    figure = plt.figure(figsize=(11, 7.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    _samples(upper, images[others], triggered[others], labels[others], attacked)
    left, right = lower.subplots(1, 2)
    _bounds(left, report)
    threshold = report["detector"]["threshold_score"]
    _scores(right, clean["mmbm_score"], attacked["mmbm_score"], threshold)
    figure.savefig(out / "figure.png", dpi=110)
    plt.close(figure)


def _samples(parent, clean: Images, triggered: Images, labels: Labels, attacked: dict) -> None:
    chosen = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
    axes = parent.subplots(2, len(chosen))
    for column, index in enumerate(chosen):
        axes[0, column].imshow(clean[index], cmap="gray", vmin=0, vmax=255)
        axes[0, column].set_title(f"{labels[index]}", fontsize=10)
        axes[1, column].imshow(triggered[index], cmap="gray", vmin=0, vmax=255)
        suspected = attacked["mmbm_suspected_class"][index]
        corrected = attacked["mmbm_corrected_class"][index]
        flag = "flagged" if attacked["mmbm_flagged"][index] else "missed"
        axes[1, column].set_title(f"{suspected} → {corrected}\n{flag}", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    parent.suptitle(
        "Clean digits, and the same with the trigger: original → corrected decision", fontsize=11
    )


def _bounds(axis, report: dict) -> None:
    sites = report["sites"]
    places = np.arange(len(sites))
    axis.bar(places, [site["clean_max"] for site in sites], color=GREY, label="clean maximum")
    median = np.array([site["bound_median"] for site in sites])
    low = np.array([site["bound_min"] for site in sites])
    high = np.array([site["bound_max"] for site in sites])
    axis.errorbar(
        places,
        median,
        [median - low, high - median],
        fmt="o",
        color=BLUE,
        capsize=3,
        label="bounds: median, lowest, highest",
    )
    axis.set_xticks(places, [str(place + 1) for place in places])
    axis.set_xlabel("site (ReLU), from input to output")
    axis.set_ylabel("activation")
    axis.set_title("Learned bounds against clean activations", fontsize=11)
    axis.legend(frameon=False, fontsize=9)


def _scores(axis, clean: np.ndarray, attacked: np.ndarray, threshold: float) -> None:
    edges = np.histogram_bin_edges(np.concatenate([clean, attacked]), bins=60)
    axis.hist(clean, edges, color=BLUE, alpha=0.75, label="clean", density=True)
    axis.hist(attacked, edges, color=RED, alpha=0.65, label="triggered", density=True)
    axis.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axis.set_yscale("log")
    axis.set_xlabel("score: how unlike clean data")
    axis.set_ylabel("density")
    axis.set_title("Detector scores on unseen images", fontsize=11)
    axis.legend(frameon=False, fontsize=9)
