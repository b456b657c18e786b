"""What quantizing changes, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from benchmarks.quantized.measured import BATCHES, PLAIN, Row
from benchmarks.quantized.usual import CLEAN, SIDE, VICTIM
from mmbm_onnx.evaluation.bench import machine
from mmbm_onnx.report.pieces import library_versions

_FIGURES = ("acc", "asr", "der", "fpr", "tpr")


def render(usual: Row, epochs: int, small: Sequence[Row], clean: int) -> str:
    """The page.

    Args:
        usual: The row of the network of usual size.
        epochs: Of its learning.
        small: Rows of small victims.
        clean: Samples that these were hardened with.
    """
    kind, libraries = machine(), library_versions()
    runtime = libraries.get("onnxruntime") or libraries.get("onnxruntime-gpu")
    instructions = f" ({', '.join(kind['instructions'])})" if kind.get("instructions") else ""
    lines = [
        "# Quantized after hardening",
        "",
        f"ONNX Runtime {runtime}'s static quantization (QDQ, int8, weights per channel in 7 bits), "
        "ranges from the clean samples; by `python -m benchmarks.quantized`; "
        f"{kind['processor']}, {kind['processors']} processors{instructions}; "
        f"{datetime.now(UTC).date().isoformat()}. *Unfolded*: with `--fold never`. Percent; time "
        "in that of the original in float, on one thread.",
        "",
        f"## {usual.victim}",
        "",
        f"torchvision's, trained for this on {VICTIM.train} images of *{VICTIM.dataset}* enlarged "
        f"to {SIDE} pixels, {VICTIM.attack}; hardened with {CLEAN} clean samples in {epochs} "
        f"passes; measured on {VICTIM.test} images.",
        "",
    ]
    heads = [*(name.upper() for name in _FIGURES), *(f"time, batch {size}" for size in BATCHES)]
    lines += _table(
        ["graph", *heads],
        (
            [
                graph,
                *(_told(figures.get(name)) for name in _FIGURES),
                *(f"{usual.ratios[graph, size]:.2f}" for size in BATCHES),
            ]
            for graph, figures in usual.figures.items()
        ),
    )
    lines += [line for graph, why in usual.refused.items() for line in ("", f"No {graph}: {why}.")]
    lines += ["", "## Small victims", "", f"With {clean} clean samples. ACC / ASR:", ""]
    lines += _table(
        ["victim", *PLAIN],
        (
            [
                row.victim,
                *(
                    f"{_told(row.figures[graph]['acc'])} / {_told(row.figures[graph]['asr'])}"
                    for graph in PLAIN
                ),
            ]
            for row in small
        ),
    )
    timed = [(graph, size) for size in BATCHES for graph in PLAIN[1:]]
    lines += ["", "Time:", ""]
    lines += _table(
        ["victim", *(f"{graph}, batch {size}" for graph, size in timed)],
        ([row.victim, *(f"{row.ratios[key]:.2f}" for key in timed)] for row in small),
    )
    return "\n".join(lines) + "\n"


def _told(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
