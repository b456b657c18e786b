"""``scan``: does a model look backdoored, and toward which class?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmbm_onnx.api.arguments import MOST_SEED, numbers, texts, whole
from mmbm_onnx.api.sources import (
    ModelSource,
    SampleSource,
    load_model,
    load_samples,
    preprocessing_or_none,
)
from mmbm_onnx.data import Preprocessing
from mmbm_onnx.errors import OptionError
from mmbm_onnx.types import Progress

_FEWEST_STEPS = 20  # with fewer, patterns have not settled, and sizes mean nothing

if TYPE_CHECKING:
    import torch

    from mmbm_onnx.pipeline.scan_result import ScanResult


def scan(
    model: ModelSource,
    clean: SampleSource | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    input_name: str | None = None,
    logits_name: str | None = None,
    input_range: Sequence[float] | None = None,
    device: str = "auto",
    provider: str | None = None,
    threads: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    example_input: torch.Tensor | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ScanResult:
    """Look for a class that is reached with far less than the others, as that of a backdoor is.

    With clean samples, the smallest pattern is made for every class that drives most of them to
    it, in three senses of small: faint all over, gathered in few places, made of few waves. A
    pattern far smaller than those of the other classes is a trigger, most likely. The largest
    margin that noise can be driven to is measured, too (MM-BD, arXiv 2205.06900); without clean
    samples that is all.

    Args:
        model: A path to an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module``, which is
            exported first and needs ``example_input``.
        clean: Clean samples, 20 or more, as ``harden`` takes them; or None.
        preprocessing: How image files become tensors.
        input_name, logits_name: When they cannot be found.
        input_range: Smallest and largest value of valid inputs; None for those of the clean
            samples, or 0 and 1 without any. Of a model that takes integers, of what they are
            embedded as.
        device: Where torch runs: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        threads: Threads of torch and ONNX Runtime; None leaves them as they are.
        seed: Of the division of the samples and of the search, from 0 to 2**63 - 1.
        steps: Gradient steps of a pattern, 20 or more; None for the default.
        example_input: A batch of inputs, for exporting a torch module.
        progress: Called with what is being done.

    Raises:
        ModelError: The model cannot be read, run, differentiated or exported, or has fewer than
            five classes.
        DataError: The clean set cannot be used.
        OptionError: An option is out of range or does not fit.
        ParityError: torch and ONNX Runtime disagree on the model.
        RuntimeMissingError: ONNX Runtime, its provider, or the device is missing.
    """
    seed = whole("seed", seed, 0, MOST_SEED)
    threads = None if threads is None else whole("threads", threads, 1)
    changes: dict[str, Any] = (
        {} if steps is None else {"steps": whole("steps", steps, _FEWEST_STEPS)}
    )
    limits = None if input_range is None else numbers("input_range", input_range, 2)
    if limits is not None and not limits[0] < limits[1]:
        raise OptionError(f"input_range is {limits}, expected the smaller number first")
    texts(input_name=input_name, logits_name=logits_name, provider=provider)
    preprocessing_or_none(preprocessing)
    if progress is not None and not callable(progress):
        raise OptionError(f"progress is {progress!r}, expected a function or None")
    if not isinstance(device, str):
        raise OptionError(f"device is {device!r}, expected auto, cpu, cuda or cuda:N")
    loaded = load_model(model, example_input)

    # Imported here, so that verify and inspect never load torch.
    from mmbm_onnx.pipeline.clock import Clock
    from mmbm_onnx.pipeline.devices import torch_device
    from mmbm_onnx.pipeline.scanning import Scanning
    from mmbm_onnx.scanning.settings import ScanSettings

    scanning = Scanning(
        settings=ScanSettings(**changes),
        device=torch_device(device),
        provider=provider,
        threads=threads,
        seed=seed,
        input_range=None if limits is None else (limits[0], limits[1]),
    )
    read = None
    if clean is not None:
        source = clean
        read = lambda interface: load_samples(source, interface, preprocessing)  # noqa: E731
    return scanning.run(
        loaded, read, Clock(progress), input_name=input_name, logits_name=logits_name
    )
