"""``mmbm-onnx scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .config import is_shared, origin
from .errors import EXIT_STATUS, GATE_FAILED, OK
from .options import (
    MODEL,
    OUTPUT,
    PREPROCESSING,
    Numbers,
    clean_option,
    device_option,
    force_option,
    logging_options,
    model_options,
    preprocessing_options,
    runtime_options,
    seed_option,
    take_preprocessing,
)
from .output import emit, warn
from .progress import ProgressBar
from .targets import check_outputs


@click.command(epilog=EXIT_STATUS, short_help="Look for a backdoor, and its class.")
@click.argument("model", type=MODEL)
@clean_option(required=False)
@click.option(
    "--range",
    "input_range",
    type=Numbers(),
    metavar="LOW,HIGH",
    help="Smallest and largest value of valid inputs.  [default: of the clean samples; without "
    "any, 0,1]",
)
@click.option(
    "--steps",
    type=click.IntRange(min=20),
    metavar="INT",
    help="Gradient steps of a pattern.  [default: 60]",
)
@click.option("--report", "report_path", type=OUTPUT, help="Write the JSON report here.")
@click.option("--sarif", "sarif_path", type=OUTPUT, help="Write the findings here as SARIF.")
@click.option(
    "--patterns", "patterns_path", type=OUTPUT, help="Write the recovered patterns here, as .npz."
)
@preprocessing_options
@model_options
@device_option("runs")
@runtime_options
@seed_option("the division of the samples and the search")
@force_option("outputs that exist")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="What is printed.",
)
@logging_options
def scan(
    model: Path,
    clean: Path | None,
    report_path: Path | None,
    sarif_path: Path | None,
    patterns_path: Path | None,
    force: bool,
    style: str,
    quiet: bool,
    **options: Any,
) -> int:
    """Look for a backdoor in MODEL, and for the class that it leads to.

    MODEL is an ONNX file, or a directory that holds one. It needs 5 classes or more, since each is
    held against the others. With clean samples, the smallest pattern is made for every class that
    drives half of them to it; a class that needs far less than the others is suspicious. The
    largest margin that noise can be driven to is told as well (MM-BD); without clean samples it is
    all there is.

    Exit status 1: suspicious, or no verdict. That nothing is found does not show that there is no
    backdoor.
    """
    outputs = {"report": report_path, "sarif": sarif_path, "patterns": patterns_path}
    check_outputs(
        [path for path in outputs.values() if path is not None],
        models=[model],
        others=[path for path in (clean, options["preprocess"]) if path is not None],
        force=force,
    )
    if patterns_path is not None and clean is None:
        raise click.UsageError("--patterns needs --clean-dir: patterns are made with samples")

    import mmbm_onnx
    from mmbm_onnx.report.scan_table import scan_summary

    if clean is None:
        _pass_over_preprocessing(options)
    preprocessing = take_preprocessing(options)
    with ProgressBar(quiet=quiet) as progress:
        result = mmbm_onnx.scan(
            model, clean, preprocessing=preprocessing, progress=progress, **options
        )
    result.save(**outputs, force=force)
    if not quiet:
        for line in result.warnings:
            warn(line)
    if style in ("json", "sarif"):
        emit(result.document(style).decode().rstrip())  # type: ignore[arg-type]
    elif not quiet:
        emit(scan_summary(result.report))
    return OK if result.judged and not result.suspicious else GATE_FAILED


def _pass_over_preprocessing(options: dict[str, Any]) -> None:
    """Take out the options of preprocessing that a file has for every command.

    Raises:
        click.UsageError: One is given for this one, which has no samples.
    """
    ctx = click.get_current_context()
    for param in ctx.command.params:
        name = param.name or ""
        if name not in PREPROCESSING or options[name] is None:
            continue
        if not is_shared(ctx, name):
            where = origin(ctx, param) or param.opts[0]
            raise click.UsageError(
                f"{where}: options of preprocessing need --clean-dir: noise is made as the model "
                "takes it, within --range"
            )
        options[name] = None
