"""What quantizing changes of one victim's graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

import mmbm_onnx
from benchmarks.defence import measures
from benchmarks.defence.victims import Trained
from benchmarks.quantized.static import quantized
from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.latency import measure_latency
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.pipeline.result import HardenResult
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.types import ShadowChoice

BATCHES = (1, 8)
PLAIN = ("original", "hardened", "original int8", "hardened int8", "unfolded int8")
DETECTORS: dict[str, ShadowChoice] = {"detector": "auto", "detector, --shadow int8": "int8"}


@dataclass(frozen=True)
class Row:
    """Figures of one victim.

    Attributes:
        victim: What tables call it.
        figures: Graph to ``acc``, ``asr``, ``der`` and, of detectors, ``fpr`` and ``tpr``, percent.
        ratios: Graph and batch size to its time in that of the original.
        refused: Detector to why there is none.
    """

    victim: str
    figures: Mapping[str, Mapping[str, float | None]]
    ratios: Mapping[tuple[str, int], float]
    refused: Mapping[str, str]


def measure(
    trained: Trained,
    name: str,
    *,
    clean: int,
    seconds: float,
    detectors: bool = False,
    threads: int = 1,
    epochs: int | None = None,
) -> Row:
    """Harden a victim, quantize, and measure every graph: those of ``PLAIN``, and ``DETECTORS``.

    Args:
        trained: The victim.
        name: What tables call it.
        clean: Samples to learn on and to take ranges from.
        seconds: Time to spend on each batch size, on one thread.
        detectors: Whether detectors are made, too.
        threads: To learn with.
        epochs: Of learning; None for as many as is usual.
    """
    x, y = (part[:clean] for part in trained.clean)
    original = onnx.load(trained.model)
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:

        def harden(shadow: ShadowChoice) -> HardenResult:
            return mmbm_onnx.harden(
                trained.model,
                (x, y),
                fold="always",
                shadow=shadow,
                detector=detectors,
                seed=trained.victim.seed,
                threads=threads,
                epochs=epochs,
                checkpoint=Path(folder) / "learned",
                checkpoint_every=0,
                resume=True,  # the second goes on where learning ended
            )

        result = harden("auto")
        hardened = result.hardened
        unfolded = insert_bounds(original, find_sites(original).sites, result.bounds)
        made = (original, hardened, *(quantized(g, x) for g in (original, hardened, unfolded)))
        graphs = dict(zip(PLAIN, made, strict=True))
        if detectors:
            for graph, shadow in DETECTORS.items():
                try:
                    detector = (result if shadow == "auto" else harden(shadow)).detector
                except RewriteError as error:
                    refused[graph] = str(error)
                    continue
                assert detector is not None
                graphs[graph] = detector
    figures: dict[str, dict[str, float | None]] = {}
    for graph, proto in graphs.items():
        found, calm, attacked = measures.measure(trained, proto.SerializeToString())
        figures[graph] = found | {"der": measures.der(figures.get("original", found), found)}
        if graph in DETECTORS:
            figures[graph] |= measures.detection(trained, calm, attacked)
        print(name, graph, figures[graph], flush=True)
    latencies = measure_latency(
        graphs,
        find_interface(original),
        x=trained.test[0][:clean],
        batch_sizes=BATCHES,
        seconds=len(BATCHES) * seconds,
        threads=1,
    )
    ratios = {(one.graph, one.batch_size): one.ratio for one in latencies}
    return Row(name, figures, ratios, refused)
