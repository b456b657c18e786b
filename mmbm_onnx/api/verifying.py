"""``verify``: does a hardened graph still do its job, and does it stop the attack?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbm_onnx.api.arguments import fraction, texts, whole
from mmbm_onnx.api.sources import (
    ModelSource,
    SampleSource,
    load_model,
    load_samples,
    preprocessing_or_none,
)
from mmbm_onnx.data import Preprocessing, check_samples
from mmbm_onnx.evaluation.verification import Limits, VerifyResult, verify_graphs
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.write import Content, write_files
from mmbm_onnx.report.json_report import to_json

if TYPE_CHECKING:
    import torch


def verify(
    original: ModelSource,
    hardened: ModelSource,
    clean: SampleSource,
    *,
    detector: ModelSource | None = None,
    triggered: SampleSource | None = None,
    max_accuracy_drop: float = 0.02,
    max_false_positive_rate: float | None = None,
    max_attack_success_rate: float | None = None,
    preprocessing: Preprocessing | None = None,
    input_name: str | None = None,
    logits_name: str | None = None,
    provider: str | None = None,
    threads: int | None = None,
    example_input: torch.Tensor | None = None,
) -> VerifyResult:
    """Compare a hardened graph, and a detector, with the original in ONNX Runtime.

    Args:
        original, hardened, detector: Paths or ``onnx.ModelProto``; the original may be a
            ``torch.nn.Module``, which is exported first and needs ``example_input``.
        clean: Clean samples that were not used to learn the bounds: an image folder, an ``.npz``,
            ``Samples``, or a pair ``(x, y)``.
        triggered: Triggered samples with true labels and the attacker's class (``target``).
        max_accuracy_drop: Gate, a fraction: accuracy may fall by no more.
        max_false_positive_rate: Gate on the detector, a fraction, or None.
        max_attack_success_rate: Gate on the detector, or without one on the hardened graph.
        preprocessing: How image files become tensors.
        input_name, logits_name: When they cannot be found.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        threads: Threads within one operator; None lets ONNX Runtime choose.
        example_input: A batch of inputs, for exporting a torch module.

    Returns:
        The gates, what was measured, and whether all gates hold.

    Raises:
        MmbmError: Something cannot be read or run; see its text.
    """
    limits = Limits(
        max_accuracy_drop=fraction("max_accuracy_drop", max_accuracy_drop, ends=True),
        max_false_positive_rate=_limit("max_false_positive_rate", max_false_positive_rate),
        max_attack_success_rate=_limit("max_attack_success_rate", max_attack_success_rate),
    )
    threads = None if threads is None else whole("threads", threads, 1)
    texts(input_name=input_name, logits_name=logits_name, provider=provider)
    preprocessing_or_none(preprocessing)
    first = load_model(original, example_input)
    interface = find_interface(
        first.proto, input_name=input_name, logits_name=logits_name, label=first.label
    )
    samples = load_samples(clean, interface, preprocessing)
    warnings = [*samples.warnings, *check_samples(samples, interface, for_learning=False)]
    attacked = None
    if triggered is not None:
        attacked = load_samples(triggered, interface, preprocessing, triggered=True)
        warnings += [*attacked.warnings, *check_samples(attacked, interface, for_learning=False)]
    result = verify_graphs(
        first,
        load_model(hardened),
        samples,
        detector=None if detector is None else load_model(detector),
        triggered=attacked,
        limits=limits,
        interface=interface,
        provider=provider,
        threads=threads,
    )
    notes = (*samples.notes, *(attacked.notes if attacked is not None else ()))
    return replace(result, notes=notes, warnings=(*warnings, *result.warnings))


def save_verification(
    result: VerifyResult,
    *,
    report: str | Path | None = None,
    html: str | Path | None = None,
    force: bool = False,
) -> None:
    """Write a verification, all files or none.

    Args:
        result: What ``verify`` returned.
        report: Where the JSON report goes (``docs/report-schema.md``); None writes none.
        html: Where the page goes, which loads nothing and runs no script; None writes none.
        force: Whether existing files may be overwritten.

    Raises:
        OutputError: A file exists, or cannot be written.
    """
    document = result.to_dict()
    files: dict[Path, Content] = {}
    if report is not None:
        files[Path(report)] = to_json(document)
    if html is not None:
        # Jinja and Pillow are for those who ask for a page.
        from mmbm_onnx.report.html.verify import verify_page

        files[Path(html)] = verify_page(document, result.details)
    write_files(files, force=force)


def _limit(name: str, value: Any) -> float | None:
    return None if value is None else fraction(name, value, ends=True)
