"""``mmbm-onnx harden``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from .errors import EXIT_STATUS, GATE_FAILED, OK
from .options import (
    MODEL,
    OUTPUT,
    Fraction,
    clean_option,
    device_option,
    force_option,
    format_option,
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


@click.command(epilog=EXIT_STATUS, short_help="Write a hardened graph, a detector and a report.")
@click.argument("model", type=MODEL)
@clean_option(required=True)
@click.option(
    "-o", "--output", type=OUTPUT, help="Hardened graph.  [default: MODEL stem.hardened.onnx]"
)
@click.option(
    "--detector-output", type=OUTPUT, help="Detector graph.  [default: MODEL stem.detector.onnx]"
)
@click.option("--no-detector", is_flag=True, help="Write no detector graph.")
@click.option(
    "--report",
    "report_path",
    type=OUTPUT,
    help="JSON report.  [default: MODEL stem.report.json]",
)
@click.option(
    "--html",
    "html_path",
    type=OUTPUT,
    metavar="PATH",
    help="The report as a page with figures, in one file that loads nothing.",
)
@click.option(
    "--scan",
    "scanned",
    is_flag=True,
    help="Scan the model for a backdoor, too: warn, and show on the page what was recovered. Needs "
    "--html, and a model of 5 classes or more. The exit status is that of the gates.",
)
@click.option(
    "--method",
    type=click.Choice(["mmac-universal", "mmac", "mmbm", "mmac-reference"]),
    default="mmac-universal",
    show_default=True,
    help="How bounds are learned.",
)
@click.option(
    "--granularity",
    type=click.Choice(["channel", "tensor"]),
    default="channel",
    show_default=True,
    help="One bound per channel or per tensor.",
)
@click.option(
    "--fold",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Fold bounds per channel into weights, so that they cost next to no time: where it can be "
    "done, all or an error, or never, so that no weight changes.",
)
@click.option(
    "--cascade",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Run the detector's bounded branch only for samples that look odd: where it can be done, "
    "or an error, or never.",
)
@click.option(
    "--shadow",
    type=click.Choice(["auto", "float", "folded", "half", "int8"]),
    default="auto",
    show_default=True,
    help="What the detector's bounded branch is: a copy of the original that shares its weights "
    "(float), the folded graph, faster and with weights of its own, or that in float16, "
    "half as large, or in int8, for CPUs; auto is folded where that can be done, weights take at "
    "most 512 MiB and --fold is not never, else float.",
)
@click.option(
    "--false-positive-rate",
    type=Fraction(),
    default=0.01,
    show_default=True,
    help="Share of clean samples that the detector may flag.",
)
@click.option(
    "--max-accuracy-drop",
    type=Fraction(),
    default=0.02,
    show_default=True,
    help="Gate: how far accuracy may fall.",
)
@click.option(
    "--min-accuracy",
    type=Fraction(),
    help="Stop when the original's accuracy on the clean set is lower.",
)
@preprocessing_options
@model_options
@click.option(
    "--epochs", type=click.IntRange(min=1), metavar="INT", help="Passes.  [default: the method's]"
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="INT",
    help="Samples per step.  [default: the method's]",
)
@click.option(
    "--calibration-fraction",
    type=Fraction(),
    default=0.5,
    show_default=True,
    help="Share of the clean set that bounds are not learned from: for null, gates, steering.",
)
@device_option("learns")
@runtime_options
@seed_option("the split and of learning")
@force_option("outputs that exist")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run that was stopped, from OUTPUT.checkpoint, if there is one.",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How often long learning keeps its state there.",
)
@format_option
@logging_options
def harden(
    model: Path,
    clean: Path,
    output: Path | None,
    detector_output: Path | None,
    no_detector: bool,
    report_path: Path | None,
    html_path: Path | None,
    scanned: bool,
    style: str,
    quiet: bool,
    force: bool,
    resume: bool,
    **options: Any,
) -> int:
    """Learn activation bounds for MODEL on clean samples and write them into its graph.

    MODEL is an ONNX file, or a directory that holds one: a classifier with one input, of floating
    point or integers, and one output of logits or probabilities. Three files are written, all or
    none: the hardened graph, a detector graph that corrects what it flags, and a JSON report; with
    --html a page, too.
    Weights that a model above 1 GiB keeps as external data go into a .data file beside each graph.
    (Only SIGKILL or a power cut while finished files get their names can leave some of them; none
    in part.)

    Learning that takes longer than a minute keeps its state in OUTPUT.checkpoint until the files
    are written. After a kill, the same command with --resume goes on from there; the graphs are
    those of a run that was not stopped.
    """
    if no_detector and detector_output is not None:
        raise click.UsageError("--no-detector and --detector-output exclude each other")
    if no_detector and options["cascade"] == "always":
        raise click.UsageError("--no-detector and --cascade always exclude each other")
    if no_detector and options["shadow"] not in ("auto", "float"):
        raise click.UsageError(f"--no-detector and --shadow {options['shadow']} exclude each other")
    if scanned and html_path is None:
        raise click.UsageError("--scan needs --html, the page that shows what it recovers")
    outputs = _outputs(model, output, detector_output, report_path, html_path)
    if no_detector:
        del outputs["detector_output"]
    checkpoint = _checkpoint(outputs["output"])
    _check(outputs, model, clean, options["preprocess"], force)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, outputs, model, clean, options["preprocess"])

    import mmbm_onnx
    from mmbm_onnx.errors import OutputError
    from mmbm_onnx.report.json_report import to_json
    from mmbm_onnx.report.scan_report import NOT_JUDGED
    from mmbm_onnx.report.tables import harden_summary

    preprocessing = take_preprocessing(options)
    with ProgressBar(quiet=quiet) as progress:
        found = None
        if scanned:
            same = ("input_name", "logits_name", "device", "provider", "threads", "seed")
            found = mmbm_onnx.scan(
                model,
                clean,
                preprocessing=preprocessing,
                progress=progress,
                **{name: options[name] for name in same},
            )
        result = mmbm_onnx.harden(
            model,
            clean,
            detector=not no_detector,
            preprocessing=preprocessing,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume and checkpoint is not None,
            restart=force,
            **options,
        )
    if found is not None:
        result = result.with_scan(found)
    report = result.save(force=force, **outputs)
    if not quiet:
        for line in result.warnings:
            warn(line)
        for finding in [] if found is None else found.report["findings"]:
            warn(f"the scan finds {model} suspicious: {finding['message']}")
        if found is not None and not found.judged:
            warn(f"the scan of {model}: {NOT_JUDGED}")
    try:
        if style == "json":
            emit(to_json(report).decode().rstrip())
        elif not quiet:
            emit(harden_summary(report, report_path=outputs["report"], html_path=html_path))
    except OutputError as error:  # the files are written: the exit status is theirs
        warn(f"{error}; the report is in {outputs['report']}")
    return OK if result.passed else GATE_FAILED


def _outputs(
    model: Path,
    output: Path | None,
    detector: Path | None,
    report: Path | None,
    html: Path | None,
) -> dict[str, Path]:
    """Where files go, by name of the parameter of ``HardenResult.save``."""
    whole = model.resolve() if model.name in ("", "..") else model
    stem = whole.name if whole.is_dir() else whole.stem
    page = {} if html is None else {"html": html}
    return {
        **page,
        "output": output or whole.with_name(f"{stem}.hardened.onnx"),
        "detector_output": detector or whole.with_name(f"{stem}.detector.onnx"),
        "report": report or whole.with_name(f"{stem}.report.json"),
    }


def _checkpoint(output: Path) -> Path | None:
    """Where the state of learning is kept; None where there is no name for it."""
    name = f"{output.name}.checkpoint"
    return output.with_name(name) if output.name and len(os.fsencode(name)) <= 255 else None


def _check_checkpoint(
    checkpoint: Path, outputs: dict[str, Path], model: Path, clean: Path, preprocess: Path | None
) -> None:
    from mmbm_onnx.errors import OutputError

    others = [*outputs.values(), model, clean, *([preprocess] if preprocess is not None else [])]
    if checkpoint.resolve() in [path.resolve() for path in others]:
        raise OutputError(
            f"{checkpoint}: is where the state of learning is kept; choose another name"
        )


def _is_large(model: Path) -> bool:
    """Whether weights go beside the graphs; what else is in the way of reading is told later."""
    from mmbm_onnx.errors import ModelError
    from mmbm_onnx.graph.read import is_large

    try:
        return is_large(model)
    except ModelError:
        return False


def _check(
    outputs: dict[str, Path], model: Path, clean: Path, preprocess: Path | None, force: bool
) -> None:
    targets = list(outputs.values())
    others = [path for path in (clean, preprocess) if path is not None]
    check_outputs(targets, models=[model], others=others, force=force)
    if not _is_large(model):
        return

    from mmbm_onnx.graph.write import check_data_name, data_path

    graphs = [path for name, path in outputs.items() if name.endswith("output")]
    for path in graphs:
        check_data_name(path)
    targets += map(data_path, graphs)
    check_outputs(targets, models=[model], others=others, force=force)
