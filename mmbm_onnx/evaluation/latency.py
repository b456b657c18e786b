"""How much longer a written graph takes than the original, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.graph.mapped import mapped
from mmbm_onnx.graph.walk import tensors
from mmbm_onnx.runtime.providers import CPU
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface

_LEAST_ROUNDS = 3
_MOST_ROUNDS = 320
_BATCHES = 32  # at most, that are run in turns: what a graph costs may depend on the samples
_RUNS = 5  # of each batch, or else fewer batches: a median of fewer says little
_MOST_BYTES = 1 << 27  # of them together
_MOST_TOGETHER = 1 << 27  # weights of graphs that are loaded at once


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one graph at one batch size.

    Attributes:
        graph: Its role, as given to `measure_latency`.
        batch_size: Samples in a run.
        seconds: Time of a run: the mean over batches of samples of the median of each one's runs,
            of which there are at least five, or one batch.
        ratio: The same of its time to the first graph's in the same round.
        ratio_low: Lower quartile of that over all rounds. (Where time depends on the samples, a few
            slow rounds may take the ratio above both quartiles.)
        ratio_high: Upper quartile.
        rounds: Number of rounds.
    """

    graph: str
    batch_size: int
    seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int


def measure_latency(
    graphs: Mapping[str, onnx.ModelProto],
    interface: Interface,
    *,
    x: npt.NDArray[Any] | None = None,
    batch_sizes: Sequence[int] = (1, 16),
    seconds: float = 2.5,
    seed: int = 0,
    provider: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Latency, ...]:
    """Time the graphs in turns, in another order each time, so that a slow moment of the machine
    falls on all of them, and so does what the graph before leaves in the caches.

    Large graphs are timed two at a time, the first and another one, since ONNX Runtime takes two
    or three times a graph's size for it; and so are those whose weights stay in their files
    (``graph.mapped``), since each that is loaded looks at all of its weights.

    Inputs are where the provider computes, and outputs stay there; CUDA computes in TensorFloat-32,
    as it does in ONNX Runtime by default. Threads that have no work do not spin: those of one graph
    would slow the next one down, by more than the graphs differ.

    Args:
        graphs: Role to graph; the first is what the others are compared with.
        interface: How all of them are fed.
        x: Samples ``(n, ...)`` to draw the batches from; None draws from the unit interval.
        batch_sizes: Samples in a run; a fixed batch of the model takes their place.
        seconds: Time to spend in all, passed only where three rounds take longer.
        seed: Which samples are drawn.
        provider: ONNX Runtime's execution provider; None is the CPU.
        threads: Threads within one operator; None lets ONNX Runtime choose.
        progress: Called with (steps done, steps in all) after each batch size.

    Raises:
        DataError: ``x`` is empty, or None where the model leaves an axis of its input open.
        OptionError: No graph, a batch size below 1, or no time.
        ModelError: ONNX Runtime refuses a graph.
    """
    sizes = (interface.batch,) if interface.batch is not None else tuple(batch_sizes)
    if not graphs or not sizes or min(sizes) < 1 or seconds <= 0:
        raise OptionError("latency needs a graph, batch sizes of at least 1 and some time")
    rng = np.random.default_rng(seed)
    batches = {size: _batches(interface, x, size, rng) for size in sizes}
    first, *others = graphs
    together = [list(graphs)]
    large = sum(map(_weights, graphs.values())) > _MOST_TOGETHER
    if others and (large or any(mapped(proto) for proto in graphs.values())):
        together = [[first, other] for other in others]
    found: dict[tuple[int, str], Latency] = {}
    steps = 0
    for roles in together:
        sessions = {
            role: Session(
                graphs[role],
                provider=provider,
                threads=threads,
                spin=False,
                defaults=True,
                label=role,
            )
            for role in roles
        }
        for size, drawn in batches.items():
            share = seconds / len(sizes) / len(together)
            for latency in time_batches(sessions, interface, drawn, share):
                found.setdefault((size, latency.graph), latency)
            steps += 1
            if progress is not None:
                progress(steps, len(together) * len(batches))
        del sessions  # before the next ones are loaded
    return tuple(found[size, role] for size in sizes for role in graphs)


def time_batches(
    sessions: Mapping[str, Session],
    interface: Interface,
    batches: Sequence[npt.NDArray[Any]],
    seconds: float,
) -> tuple[Latency, ...]:
    """Time loaded graphs in turns on given batches.

    Args:
        sessions: By role; the first is what the others are compared with.
        interface: How all of them are fed.
        batches: What they are fed in turn, of one size ``(n, ...)``.
        seconds: Time to spend, passed only where three rounds take longer.
    """
    times, count = _rounds(sessions, [{interface.input: batch} for batch in batches], seconds)
    ratios = times / times[:, :1]
    typical, middle = (
        np.mean([np.median(values[batch::count], axis=0) for batch in range(count)], axis=0)
        for values in (times, ratios)
    )
    results = []
    for column, role in enumerate(sessions):
        low, high = np.quantile(ratios[:, column], (0.25, 0.75))
        results.append(
            Latency(
                graph=role,
                batch_size=len(batches[0]),
                seconds=float(typical[column]),
                ratio=float(middle[column]),
                ratio_low=float(low),
                ratio_high=float(high),
                rounds=len(times),
            )
        )
    return tuple(results)


def _weights(proto: onnx.ModelProto) -> int:
    """How many numbers its tensors hold."""
    return sum(prod(tensor.dims) for tensor in tensors(proto))


def _batches(
    interface: Interface, x: npt.NDArray[Any] | None, size: int, rng: np.random.Generator
) -> list[npt.NDArray[Any]]:
    first = batch_of(interface, x, size, rng)
    count = min(_BATCHES, max(1, _MOST_BYTES // max(first.nbytes, 1)))
    return [first, *(batch_of(interface, x, size, rng) for _ in range(count - 1))]


def batch_of(
    interface: Interface, x: npt.NDArray[Any] | None, size: int, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """A batch of samples drawn from ``x``, or of numbers from the unit interval.

    Raises:
        DataError: As ``measure_latency``.
    """
    if x is not None:
        if len(x) == 0:
            raise DataError("latency: no samples to draw from")
        return np.ascontiguousarray(x[rng.integers(0, len(x), size)])
    shape = interface.input_shape[1:]
    if None in shape:
        raise DataError(f"latency: input {interface.input!r} has open axes; pass samples")
    values = rng.random((size, *(length for length in shape if length is not None)))
    return values.astype(interface.input_dtype)


def _rounds(
    sessions: Mapping[str, Session],
    feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
    seconds: float,
) -> tuple[npt.NDArray[np.float64], int]:
    """Seconds of each run, ``(rounds, sessions)``, and how many of the feeds they are of, in turn:
    so many that each has five rounds, as far as one can see. Each session has run once before, on a
    GPU with each of them: how many samples go on within a detector is a new shape to it, and CUDA
    searches at each."""
    every = [[session.bound(feed) for session in sessions.values()] for feed in feeds]
    on_cpu = all(session.provider == CPU for session in sessions.values())
    for runs in every[:1] if on_cpu else every:
        for run in runs:
            run()
    end = time.perf_counter() + seconds
    rng = np.random.default_rng(0)
    rows = [_timed(every[0], rng)]
    likely = min(_MOST_ROUNDS, seconds / max(float(rows[0].sum()), 1e-9))
    count = min(max(int(likely) // _RUNS, 1), len(every))
    while len(rows) < _MOST_ROUNDS and (len(rows) < _LEAST_ROUNDS or time.perf_counter() < end):
        rows.append(_timed(every[len(rows) % count], rng))
    return np.stack(rows), min(count, len(rows))


def _timed(runs: Sequence[Callable[[], Any]], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Seconds of each run, done in an order that is drawn."""
    took = np.empty(len(runs))
    for index in rng.permutation(len(runs)):
        start = time.perf_counter()
        runs[index]()
        took[index] = time.perf_counter() - start
    return took
