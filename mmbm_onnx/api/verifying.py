"""``verify``: does a hardened graph still do its job, and does it stop the attack?"""

from __future__ import annotations

from dataclasses import replace

from mmbm_onnx.api.sources import ModelSource, SampleSource, load_model, load_samples
from mmbm_onnx.data import Preprocessing, check_samples
from mmbm_onnx.evaluation.verification import Limits, VerifyResult, verify_graphs
from mmbm_onnx.graph.interface import find_interface


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
) -> VerifyResult:
    """Compare a hardened graph, and a detector, with the original in ONNX Runtime.

    Args:
        original, hardened, detector: Paths or ``onnx.ModelProto``.
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

    Returns:
        The gates, what was measured, and whether all gates hold.

    Raises:
        MmbmError: Something cannot be read or run; see its text.
    """
    limits = Limits(max_accuracy_drop, max_false_positive_rate, max_attack_success_rate)
    first = load_model(original)
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
