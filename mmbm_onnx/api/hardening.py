"""``harden``: from a model and a clean set to a hardened graph, a detector and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmbm_onnx.api.arguments import MOST_SEED, check_checkpoint, fraction, texts, whole
from mmbm_onnx.api.sources import (
    ModelSource,
    SampleSource,
    load_model,
    load_samples,
    preprocessing_or_none,
)
from mmbm_onnx.data import Preprocessing
from mmbm_onnx.errors import OptionError
from mmbm_onnx.types import Choice, Granularity, Progress, ShadowChoice

if TYPE_CHECKING:
    import torch

    from mmbm_onnx.pipeline.result import HardenResult


def harden(
    model: ModelSource,
    clean: SampleSource,
    *,
    method: str = "mmac-universal",
    granularity: Granularity = "channel",
    fold: Choice = "auto",
    cascade: Choice = "auto",
    shadow: ShadowChoice = "auto",
    detector: bool = True,
    false_positive_rate: float = 0.01,
    max_accuracy_drop: float = 0.02,
    preprocessing: Preprocessing | None = None,
    input_name: str | None = None,
    logits_name: str | None = None,
    device: str = "auto",
    provider: str | None = None,
    threads: int | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    calibration_fraction: float = 0.5,
    min_accuracy: float | None = None,
    example_input: torch.Tensor | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    resume: bool = False,
    restart: bool = False,
) -> HardenResult:
    """Learn bounds from clean samples and write them into the graph.

    Nothing the caller hands in is changed, and nothing but a checkpoint is written to disk: see
    ``HardenResult.save``.

    Args:
        model: A path to an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module``, which is
            exported first and needs ``example_input``.
        clean: Trusted samples: an image folder with one folder per class, an ``.npz``,
            ``Samples``, or a pair ``(x, y)`` of arrays ready for the model; ``y`` may be None.
        method: ``"mmac-universal"``, ``"mmac"``, ``"mmbm"`` or ``"mmac-reference"``.
        granularity: One bound per ``"channel"`` or per ``"tensor"``.
        fold: Whether bounds per channel are folded into the weights of the hardened graph, so that
            they cost no time: ``"auto"``, wherever they can be; ``"always"``, or it is an error; or
            ``"never"``, so that no weight changes.
        cascade: Whether the detector's bounded branch runs only for samples that look odd by their
            activations in the original: ``"auto"``, where that can be done; ``"always"``, or it is
            an error; or ``"never"``.
        shadow: What the detector's bounded branch is: ``"float"``, a copy of the original's nodes
            that shares its weights; ``"folded"``, the hardened graph with its bounds folded, which
            is faster and has weights of its own; ``"int8"``, that quantized, for CPUs; ``"half"``,
            that in float16, half as large; or ``"auto"``, folded where that can be done, the model
            has no more than 512 MiB and ``fold`` is not ``"never"``, else float, with the reason in
            the report.
        detector: Whether to make the detector graph.
        false_positive_rate: Share of clean samples that the detector may flag, in (0, 1).
        max_accuracy_drop: Gate, a fraction: accuracy on the calibration part may fall by no more.
        preprocessing: How image files become tensors.
        input_name, logits_name: When they cannot be found.
        device: Where to learn: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        threads: Threads of torch and ONNX Runtime; None leaves them as they are.
        seed: Of the split and of learning, from 0 to 2**63 - 1.
        epochs, batch_size: Override those of the method; without a batch size it is lowered for
            large inputs.
        calibration_fraction: Share of the samples that bounds are not learned from: for null and
            gates, and where the method says so, for the accuracy that steers it.
        min_accuracy: Stop if the original's accuracy on ``clean`` is below this fraction.
        example_input: A batch of inputs, for exporting a torch module.
        progress: Called with what is being done.
        checkpoint: A file to keep the state of learning in while it lasts; ``HardenResult.save``
            removes it.
        checkpoint_every: Seconds between two states; 0 for one every epoch.
        resume: Go on from the checkpoint, if it is there. On the CPU the result is, bit for bit,
            that of a run that was not stopped.
        restart: Start again although there is a checkpoint, which is replaced.

    Raises:
        ModelError: The model cannot be read, run or exported, or is hardened already.
        DataError: The clean set cannot be used.
        OptionError: An option is out of range or does not fit.
        OutputError: There is a checkpoint, and it is neither to be gone on from nor to be
            replaced; or a file of its name that is none.
        ParityError: torch and ONNX Runtime disagree on the model.
        NothingToHardenError: No activation takes a bound.
        RewriteError: A written graph failed its checks.
        RuntimeMissingError: ONNX Runtime, its provider, or the device is missing.
    """
    false_positive_rate = fraction("false_positive_rate", false_positive_rate, ends=False)
    calibration_fraction = fraction("calibration_fraction", calibration_fraction, ends=False)
    max_accuracy_drop = fraction("max_accuracy_drop", max_accuracy_drop, ends=True)
    if min_accuracy is not None:
        min_accuracy = fraction("min_accuracy", min_accuracy, ends=True)
    seed = whole("seed", seed, 0, MOST_SEED)
    epochs = None if epochs is None else whole("epochs", epochs, 1)
    batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
    threads = None if threads is None else whole("threads", threads, 1)
    texts(input_name=input_name, logits_name=logits_name, provider=provider)
    if not isinstance(detector, bool):
        raise OptionError(f"detector is {detector!r}, expected True or False")
    preprocessing_or_none(preprocessing)
    where = None if checkpoint is None else Path(checkpoint)
    if resume and where is None:
        raise OptionError("resume needs a checkpoint")
    if not checkpoint_every >= 0:
        raise OptionError(f"checkpoint_every is {checkpoint_every}, expected 0 or more seconds")
    if where is not None and not resume:
        check_checkpoint(where, restart=restart)
    if progress is not None and not callable(progress):
        raise OptionError(f"progress is {progress!r}, expected a function or None")
    if not isinstance(device, str):
        raise OptionError(f"device is {device!r}, expected auto, cpu, cuda or cuda:N")
    if granularity not in ("channel", "tensor"):
        raise OptionError(f"granularity is {granularity!r}, expected 'channel' or 'tensor'")
    for name, choice in (("fold", fold), ("cascade", cascade)):
        if choice not in ("auto", "always", "never"):
            raise OptionError(f"{name} is {choice!r}, expected 'auto', 'always' or 'never'")
    if shadow not in ("auto", "float", "folded", "half", "int8"):
        expected = "'auto', 'float', 'folded', 'half' or 'int8'"
        raise OptionError(f"shadow is {shadow!r}, expected {expected}")
    if shadow not in ("auto", "float") and not detector:
        raise OptionError(f"shadow {shadow!r} asks for a detector, and detector=False for none")
    if cascade == "always" and not detector:
        raise OptionError("cascade 'always' asks for a detector, and detector=False for none")

    # Imported here, so that verify and inspect never load torch; and torch last, so that what is
    # wrong with model or samples is told without waiting for it.
    from mmbm_onnx.learning.settings import settings_for
    from mmbm_onnx.pipeline.clock import Clock
    from mmbm_onnx.pipeline.preparation import prepare

    settings = settings_for(method, epochs=epochs, batch_size=batch_size)
    if device not in ("auto", "cpu"):
        _torch_device(device)
    clock = Clock(progress)
    with clock.phase("read"):
        prepared = prepare(
            load_model(model, example_input),
            lambda interface: load_samples(clean, interface, preprocessing),
            input_name=input_name,
            logits_name=logits_name,
            calibration_fraction=calibration_fraction,
            min_accuracy=min_accuracy,
            seed=seed,
            provider=provider,
            threads=threads,
        )

    from mmbm_onnx.pipeline.hardening import Pipeline

    if batch_size is None:
        settings = settings.for_inputs(prepared.fit.x[0].size)
    pipeline = Pipeline(
        settings=settings,
        granularity=granularity,
        fold=fold,
        cascade=cascade,
        shadow=shadow,
        wants_detector=detector,
        false_positive_rate=false_positive_rate,
        max_accuracy_drop=max_accuracy_drop,
        device=_torch_device(device),
        provider=provider,
        threads=threads,
        seed=seed,
        checkpoint=where,
        checkpoint_every=checkpoint_every,
        resume=resume,
    )
    return pipeline.run(prepared, clock)


def _torch_device(name: str) -> torch.device:
    from mmbm_onnx.pipeline.devices import torch_device

    return torch_device(name)
