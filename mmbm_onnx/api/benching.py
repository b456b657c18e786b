"""``bench``: what do graphs cost beside the original?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmbm_onnx.api.arguments import MOST_SEED, positive, texts, whole
from mmbm_onnx.api.sources import (
    ModelSource,
    SampleSource,
    load_model,
    load_samples,
    preprocessing_or_none,
)
from mmbm_onnx.data import Preprocessing
from mmbm_onnx.errors import OptionError
from mmbm_onnx.evaluation.bench import BenchResult, bench_graphs
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.report.pieces import library_versions
from mmbm_onnx.types import Progress


def bench(
    original: ModelSource,
    *others: ModelSource,
    samples: SampleSource | None = None,
    batch_sizes: Sequence[int] | int = (1, 8),
    threads: Sequence[int] | int | None = None,
    seconds: float = 5.0,
    max_ratio: float | None = None,
    memory: bool = True,
    preprocessing: Preprocessing | None = None,
    input_name: str | None = None,
    logits_name: str | None = None,
    provider: str | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> BenchResult:
    """Time graphs in ONNX Runtime, in turns with the original, and measure their memory.

    Args:
        original: A path or an ``onnx.ModelProto``.
        others: Graphs that are fed as it is: the hardened one, the detector.
        samples: What to feed: an image folder, an ``.npz``, ``Samples``, or an array pair
            ``(x, y)``; None feeds numbers from the unit interval.
        batch_sizes: Samples in a run, one number or several; a fixed batch of the model takes their
            place.
        threads: Threads within one operator, one number or several; None lets ONNX Runtime choose.
        seconds: Time to spend on each batch size and number of threads.
        max_ratio: Gate: no graph may take more than this many times the original's time.
        memory: Whether memory is measured, each graph in a process of its own.
        preprocessing: How image files become tensors.
        input_name, logits_name: When they cannot be found.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        seed: Which samples are drawn, from 0 to 2**63 - 1.
        progress: Called after each batch size, and each graph whose memory was measured.

    Raises:
        MmbmError: Something cannot be read or run; see its text.
    """
    counts: list[int | None] = [None]
    if threads is not None:
        counts = [whole("threads", count, 1) for count in _several(threads)]
    sizes = [whole("batch_sizes", size, 1) for size in _several(batch_sizes)]
    if not counts or not sizes:
        raise OptionError("bench needs a batch size, and where threads are given, one number")
    seconds = positive("seconds", seconds)
    if max_ratio is not None:
        max_ratio = positive("max_ratio", max_ratio)
    seed = whole("seed", seed, 0, MOST_SEED)
    texts(input_name=input_name, logits_name=logits_name, provider=provider)
    preprocessing_or_none(preprocessing)
    if progress is not None and not callable(progress):
        raise OptionError(f"progress is {progress!r}, expected a function or None")
    models = [load_model(source) for source in (original, *others)]
    interface = find_interface(
        models[0].proto,
        input_name=input_name,
        logits_name=logits_name,
        label=models[0].label,
    )
    x = None if samples is None else load_samples(samples, interface, preprocessing).x
    return bench_graphs(
        models,
        interface=interface,
        x=x,
        batch_sizes=sizes,
        threads=counts,
        seconds=seconds,
        seed=seed,
        provider=provider,
        max_ratio=max_ratio,
        memory=memory,
        libraries=library_versions(),
        progress=progress,
    )


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) else [given]
