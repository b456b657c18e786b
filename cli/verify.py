"""``mmbm-onnx verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .errors import EXIT_STATUS, GATE_FAILED, OK
from .options import (
    MODEL,
    OUTPUT,
    SAMPLES,
    Fraction,
    clean_option,
    force_option,
    format_option,
    logging_options,
    model_options,
    preprocessing_options,
    runtime_options,
    take_preprocessing,
)
from .output import emit, warn
from .targets import check_outputs


@click.command(epilog=EXIT_STATUS, short_help="Judge a hardened graph, and a detector, by gates.")
@click.argument("original", type=MODEL)
@click.argument("hardened", type=MODEL)
@clean_option(required=True)
@click.option("--detector", type=MODEL, metavar="PATH", help="Detector graph to judge as well.")
@click.option(
    "--triggered",
    type=SAMPLES,
    metavar="PATH",
    help="Triggered samples: an .npz with x, y (true labels) and target, one or one for each.",
)
@click.option(
    "--max-accuracy-drop",
    type=Fraction(),
    default=0.02,
    show_default=True,
    help="Gate: how far accuracy may fall below the original's.",
)
@click.option(
    "--max-false-positive-rate",
    type=Fraction(),
    help="Gate: share of clean samples that the detector may flag.",
)
@click.option(
    "--max-attack-success-rate",
    type=Fraction(),
    help="Gate: of the detector where there is one, else of the hardened graph.",
)
@click.option("--report", "report_path", type=OUTPUT, help="Write the JSON report here.")
@click.option(
    "--html",
    "html_path",
    type=OUTPUT,
    metavar="PATH",
    help="Write a page with figures, in one file that loads nothing.",
)
@force_option("outputs that exist")
@preprocessing_options
@model_options
@runtime_options
@format_option
@logging_options
def verify(
    original: Path,
    hardened: Path,
    clean: Path,
    report_path: Path | None,
    html_path: Path | None,
    force: bool,
    style: str,
    quiet: bool,
    **options: Any,
) -> int:
    """Run ORIGINAL and HARDENED in ONNX Runtime and check that HARDENED can take its place.

    Use clean samples that the bounds were not learned from. Needs no torch; writes no file
    but those of --report and --html.
    """
    outputs = {"report": report_path, "html": html_path}
    graphs = [original, hardened, options["detector"]]
    others = [clean, options["triggered"], options["preprocess"]]
    check_outputs(
        [path for path in outputs.values() if path is not None],
        models=[graph for graph in graphs if graph],
        others=[other for other in others if other],
        force=force,
    )

    import mmbm_onnx
    from mmbm_onnx.report.tables import verify_summary

    preprocessing = take_preprocessing(options)
    result = mmbm_onnx.verify(original, hardened, clean, preprocessing=preprocessing, **options)
    mmbm_onnx.save_verification(result, **outputs, force=force)
    if not quiet:
        for line in result.warnings:
            warn(line)
    if style == "json":
        emit(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    elif not quiet:
        emit(verify_summary(result, report_path=report_path, html_path=html_path))
    return OK if result.passed else GATE_FAILED
