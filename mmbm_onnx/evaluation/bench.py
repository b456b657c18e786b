"""What graphs cost beside the original: time and memory, at several batch sizes and threads."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmbm_onnx.errors import OptionError
from mmbm_onnx.evaluation.latency import Latency, batch_of, measure_latency
from mmbm_onnx.evaluation.memory import peak_memory
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface, Progress

SCHEMA = "mmbm-onnx/bench-report"
VERSION = 1
# Of x86, as Linux calls them: what ONNX Runtime picks its kernels by.
_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of one graph at one batch size and number of threads.

    Attributes:
        threads: Threads within one operator; None for ONNX Runtime's choice.
        latency: The time, and its ratio to the original's.
    """

    threads: int | None
    latency: Latency


@dataclass(frozen=True, slots=True)
class BenchedFile:
    """A graph: what messages call it, SHA-256 in hex, and the memory that it takes.

    Attributes:
        peak_memory: Bytes of the host's memory that loading it and running the largest batch takes
            with the first number of threads; None where that is not known.
        memory_ratio: The same in that of the original.
    """

    path: str
    sha256: str
    peak_memory: int | None
    memory_ratio: float | None


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What graphs cost.

    Attributes:
        files: The graphs, the original first.
        timings: Of every graph, batch size and number of threads; graphs are called by their paths.
        providers: Execution providers that ran.
        seed: Of the inputs.
        max_ratio: What no ratio may exceed, or None.
        libraries: Versions, by name.
    """

    files: tuple[BenchedFile, ...]
    timings: tuple[Timing, ...]
    providers: tuple[str, ...]
    seed: int
    max_ratio: float | None
    libraries: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether no ratio exceeds the largest allowed."""
        return self.max_ratio is None or self.worst_ratio <= self.max_ratio

    @property
    def worst_ratio(self) -> float:
        """The largest ratio of the graphs that are compared with the original, whose own is 1."""
        original = self.files[0].path
        return max(t.latency.ratio for t in self.timings if t.latency.graph != original)

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON types; see ``docs/report-schema.md``."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "passed": self.passed,
            "max_ratio": self.max_ratio,
            "files": [asdict(file) for file in self.files],
            "timings": [
                {"threads": timing.threads, **asdict(timing.latency)} for timing in self.timings
            ],
            "providers": list(self.providers),
            "seed": self.seed,
            "machine": machine(),
            "libraries": dict(self.libraries),
            "date": datetime.now(UTC).date().isoformat(),
        }


def machine() -> dict[str, Any]:
    """Kind of this machine: its system, its processor and what that has for vectors of floats and
    of small integers, and how many processors there are."""
    told = _processor()
    flags = told.get("flags", "").split()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": told.get("model name") or platform.processor() or "unknown",
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "processors": os.cpu_count() or 1,
    }


def _processor() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def bench_graphs(
    models: Sequence[OnnxModel],
    *,
    interface: Interface | None = None,
    x: npt.NDArray[Any] | None = None,
    batch_sizes: Sequence[int] = (1, 8),
    threads: Sequence[int | None] = (None,),
    seconds: float = 5.0,
    seed: int = 0,
    provider: str | None = None,
    max_ratio: float | None = None,
    memory: bool = True,
    libraries: Mapping[str, str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> BenchResult:
    """Time graphs in turns beside the first one, and measure the memory that each takes.

    Args:
        models: The original, and graphs that are fed as it is.
        interface: How; None to find it.
        x: Samples ``(n, ...)`` to draw batches from; None draws from the unit interval.
        batch_sizes: Samples in a run; a fixed batch of the model takes their place.
        threads: Threads within one operator; None lets ONNX Runtime choose.
        seconds: Time to spend on each batch size and number of threads.
        seed: Which samples are drawn.
        provider: ONNX Runtime's execution provider; None is the CPU.
        max_ratio: What no ratio may exceed.
        memory: Whether memory is measured.
        libraries: Versions, for the result.
        progress: Called after each batch size, and each graph whose memory was measured.

    Raises:
        OptionError: Fewer than two graphs, two of one name, one that is fed otherwise, or as
            ``measure_latency``.
        DataError, ModelError: As ``measure_latency``.
    """
    if len(models) < 2:
        raise OptionError("a comparison needs two graphs at least")
    names = _names(models)
    graphs = {name: model.proto for name, model in zip(names, models, strict=True)}
    first = models[0]
    interface = interface or find_interface(first.proto, label=first.label)
    sizes = [interface.batch] if interface.batch else list(dict.fromkeys(batch_sizes))
    for model in models[1:]:
        _check_input(model, interface, first)
    tell = progress or _tell_nobody
    counts = list(dict.fromkeys(threads))
    timings = []
    tell(Progress("time", 0, len(counts), {}))
    for number, count in enumerate(counts):
        found = measure_latency(
            graphs,
            interface,
            x=x,
            batch_sizes=sizes,
            seconds=seconds * len(sizes),
            seed=seed,
            provider=provider,
            threads=count,
            progress=_part(tell, number, len(counts)),
        )
        timings += [Timing(count, latency) for latency in found]
    peaks: list[int | None] = [None] * len(models)
    if memory:
        batch = batch_of(interface, x, max(sizes), np.random.default_rng(seed))
        for index, model in enumerate(models):
            tell(Progress("memory", index, len(models), {}))
            peaks[index] = _peak(model, (interface.input, batch), provider, threads[0])
        tell(Progress("memory", len(models), len(models), {}))
    return BenchResult(
        files=tuple(
            BenchedFile(
                name,
                model.sha256,
                peak,
                peak / peaks[0] if peak is not None and peaks[0] else None,
            )
            for name, model, peak in zip(names, models, peaks, strict=True)
        ),
        timings=tuple(timings),
        providers=Session(first.proto, provider=provider).providers,
        seed=seed,
        max_ratio=max_ratio,
        libraries=libraries or {},
    )


def _tell_nobody(event: Progress) -> None:
    """The callback where there is none."""


def _part(tell: Callable[[Progress], None], number: int, parts: int) -> Callable[[int, int], None]:
    """A callback for one of several parts of equal length, which tells of all."""
    return lambda step, total: tell(Progress("time", number * total + step, parts * total, {}))


def _names(models: Sequence[OnnxModel]) -> list[str]:
    """What graphs are called: models in memory may have one name, files may not."""
    paths = [model.path for model in models if model.path is not None]
    if len(set(paths)) < len(paths):
        raise OptionError("a graph is named twice; compare each with the original once")
    names: list[str] = []
    for model in models:
        name, count = model.label, 1
        while name in names:
            count += 1
            name = f"{model.label} ({count})"
        names.append(name)
    return names


def _check_input(model: OnnxModel, interface: Interface, first: OnnxModel) -> None:
    needed = {
        info.name: info.type.tensor_type.elem_type
        for info in model.proto.graph.input
        if info.name not in {tensor.name for tensor in model.proto.graph.initializer}
    }
    wanted = {
        info.name: info.type.tensor_type.elem_type
        for info in first.proto.graph.input
        if info.name == interface.input
    }
    if needed != wanted:
        raise OptionError(
            f"{model.label}: takes {', '.join(map(repr, needed)) or 'nothing'}, which is not what "
            f"{first.label} takes ({interface.input!r})"
        )


def _peak(
    model: OnnxModel,
    feed: tuple[str, npt.NDArray[Any]],
    provider: str | None,
    threads: int | None,
) -> int | None:
    if model.path is not None:
        return peak_memory(model.path, feed, provider=provider, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.proto.SerializeToString())
        return peak_memory(file, feed, provider=provider, threads=threads)
