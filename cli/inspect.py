"""``mmbm-onnx inspect``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .errors import EXIT_STATUS, OK
from .options import MODEL, format_option, logging_options, model_options
from .output import emit


@click.command(epilog=EXIT_STATUS, short_help="Show what of a model takes bounds, and what not.")
@click.argument("model", type=MODEL)
@model_options
@format_option
@logging_options
def inspect(
    model: Path, input_name: str | None, logits_name: str | None, style: str, quiet: bool
) -> int:
    """List the activations of MODEL that take a bound, and the others with the reason.

    Nothing is run: needs neither torch nor ONNX Runtime.
    """
    import mmbm_onnx
    from mmbm_onnx.report.tables import inspection_summary

    result = mmbm_onnx.inspect(model, input_name=input_name, logits_name=logits_name)
    if style == "json":
        emit(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    elif not quiet:
        # What a program or a file gets is searched for names.
        emit(inspection_summary(result, whole=not sys.stdout.isatty()))
    return OK
