"""``mmbm-onnx bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .errors import EXIT_STATUS, GATE_FAILED, OK
from .options import (
    MODEL,
    SAMPLES,
    Counts,
    format_option,
    logging_options,
    model_options,
    preprocessing_options,
    provider_option,
    seed_option,
    take_preprocessing,
)
from .output import emit
from .progress import ProgressBar


@click.command(epilog=EXIT_STATUS, short_help="Measure what graphs cost beside the original.")
@click.argument("original", type=MODEL)
@click.argument("others", type=MODEL, nargs=-1, required=True, metavar="OTHER...")
@click.option(
    "--batch",
    "batch_sizes",
    type=Counts(),
    default="1,8",
    show_default=True,
    help="Samples in a run, one number or several; a model's fixed batch takes their place.",
)
@click.option(
    "--threads",
    type=Counts(),
    help="CPU threads, one number or several.  [default: as many as ONNX Runtime chooses]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="Time for each batch size and number of threads.",
)
@click.option(
    "--max-ratio",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATIO",
    help="Gate: no graph may take more than this many times the original's time.",
)
@click.option(
    "--samples",
    type=SAMPLES,
    metavar="PATH",
    help="What to feed: a directory of images or an .npz, as for --clean-dir of harden.  "
    "[default: numbers from 0 to 1]",
)
@click.option("--no-memory", is_flag=True, help="Measure no memory.")
@preprocessing_options
@model_options
@provider_option
@seed_option("the samples that are drawn")
@format_option
@logging_options
def bench(
    original: Path,
    others: tuple[Path, ...],
    no_memory: bool,
    style: str,
    quiet: bool,
    **options: Any,
) -> int:
    """Time ORIGINAL and OTHER graphs in ONNX Runtime, in turns, and measure their memory.

    Every ratio is of two runs of one round, in which all graphs run in an order that is drawn, so
    that a slow moment of the machine falls on all; what is told is their median for each of up to
    32 batches of samples, and its mean over these. A detector's time depends on the samples: give
    it some of what it will see. Needs no torch; writes no file.
    """
    import mmbm_onnx
    from mmbm_onnx.report.tables import bench_summary

    preprocessing = take_preprocessing(options)
    with ProgressBar(quiet=quiet) as progress:
        result = mmbm_onnx.bench(
            original,
            *others,
            memory=not no_memory,
            preprocessing=preprocessing,
            progress=progress,
            **options,
        )
    if style == "json":
        emit(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    elif not quiet:
        emit(bench_summary(result))
    return OK if result.passed else GATE_FAILED
