"""Latency: relative to the first graph, in turns, within a budget of time."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx.parser
import pytest
import toy_models

from mmbm_onnx.errors import DataError, OptionError
from mmbm_onnx.evaluation import latency
from mmbm_onnx.evaluation.latency import measure_latency
from mmbm_onnx.graph.interface import find_interface

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 64] x) => (float[N, 64] y) {{ {nodes} }}"""


def chain(length: int) -> onnx.ModelProto:
    nodes = [f"v{i + 1} = Sin(v{i})" for i in range(length)]
    text = "\n".join(["v0 = Identity(x)", *nodes, f"y = Identity(v{length})"])
    return onnx.parser.parse_model(CHAIN.format(nodes=text))


def test_a_graph_with_more_work_takes_longer_than_the_first() -> None:
    graphs = {"original": chain(20), "longer": chain(400)}
    interface = find_interface(graphs["original"])
    found = measure_latency(graphs, interface, batch_sizes=(1, 64), seconds=0.4, threads=1)
    assert [(item.graph, item.batch_size) for item in found] == [
        ("original", 1),
        ("longer", 1),
        ("original", 64),
        ("longer", 64),
    ]
    for item in found:
        assert item.rounds >= 3
        assert item.seconds > 0
        assert item.ratio_low <= item.ratio_high
    assert found[0].ratio == found[0].ratio_high == 1.0
    assert found[1].ratio > 2
    assert found[3].ratio > 2


def test_time_is_taken_on_the_samples_given() -> None:
    # Some samples take a branch of 2,000 operators, the others one of none.
    body = "\n".join(["w0 = Identity(x)", *(f"w{i + 1} = Sin(w{i})" for i in range(2000))])
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 64] x) => (float[N, 64] y) {{
            total = ReduceSum <keepdims = 0> (x)
            zero = Constant <value = float {{0.0}}> ()
            odd = Greater(total, zero)
            y = If(odd) <
                then_branch = t () => (float[N, 64] a) {{ {body} a = Identity(w2000) }},
                else_branch = e () => (float[N, 64] b) {{ b = Identity(x) }}
            >
        }}"""
    graphs = {"original": chain(5), "branching": onnx.parser.parse_model(text)}
    x = np.ones((1, 64), np.float32)
    interface = find_interface(graphs["original"])

    def ratio(samples: np.ndarray) -> float:
        options = {"batch_sizes": (1,), "seconds": 0.5, "threads": 1}
        return measure_latency(graphs, interface, x=samples, **options)[1].ratio

    assert ratio(x) > 10 * ratio(-x)


def test_time_that_depends_on_the_samples_is_a_mean_over_batches_of_medians(monkeypatch) -> None:
    # Two batches in turns; the second graph takes 2 seconds for the one and 6 for the other.
    rows = [[1.0, 2.0], [1.0, 6.0], [1.0, 2.5], [1.0, 6.0], [10.0, 20.0], [1.0, 600.0]]
    monkeypatch.setattr(latency, "_rounds", lambda *_: (np.array(rows), 2))
    batches = [np.zeros((4, 64), np.float32)] * 2
    interface = find_interface(chain(5))
    first, second = latency.time_batches({"one": None, "two": None}, interface, batches, 1)
    assert (first.seconds, first.ratio) == (1.0, 1.0)
    assert second.seconds == (2.5 + 6) / 2
    assert second.ratio == (2 + 6) / 2
    assert (second.ratio_low, second.batch_size, second.rounds) == (2.125, 4, 6)


class Clock:
    """Time that only runs pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def session(self, name: str, seconds: float) -> SimpleNamespace:
        def bound(feed):
            def run() -> None:
                self.now += seconds * float(feed["x"].flat[0])
                self.ran.append(name)

            return run

        return SimpleNamespace(provider="CPUExecutionProvider", bound=bound)


@pytest.mark.parametrize(("seconds", "batches"), [(400.0, 4), (33.0, 2), (9.0, 1), (0.1, 1)])
def test_of_slow_graphs_fewer_batches_are_run(
    monkeypatch: pytest.MonkeyPatch, seconds: float, batches: int
) -> None:
    """A median of one run is none: each batch has five, where there is time for them."""
    clock = Clock(monkeypatch)
    sessions = {"one": clock.session("one", 1.0), "two": clock.session("two", 2.0)}
    x = [np.full((1, 64), factor, np.float32) for factor in (1, 10, 1, 1)]
    first, second = latency.time_batches(sessions, find_interface(chain(5)), x, seconds)
    assert first.seconds == {4: 13 / 4, 2: 11 / 2, 1: 1.0}[batches]
    assert second.ratio == second.ratio_low == second.ratio_high == 2.0
    assert second.rounds >= 3
    assert clock.now <= max(seconds, 9) + 60


def test_graphs_run_in_another_order_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    sessions = {name: clock.session(name, 1.0) for name in "abc"}
    latency.time_batches(sessions, find_interface(chain(5)), [np.ones((1, 64), np.float32)], 300)
    rounds = ["".join(clock.ran[start : start + 3]) for start in range(3, len(clock.ran), 3)]
    assert len(rounds) >= 99
    assert all(sorted(order) == list("abc") for order in rounds)
    assert min(rounds.count(order) for order in set(rounds)) > 5 and len(set(rounds)) == 6


def test_large_graphs_are_loaded_two_at_a_time(monkeypatch) -> None:
    loaded: list[list[str]] = []
    time_batches, session = latency.time_batches, latency.Session

    def noted(sessions, *rest):
        loaded.append(list(sessions))
        return time_batches(sessions, *rest)

    def as_deployed(*args, **options):
        assert options["defaults"]
        return session(*args, **options)

    monkeypatch.setattr(latency, "time_batches", noted)
    monkeypatch.setattr(latency, "Session", as_deployed)
    monkeypatch.setattr(latency, "_MOST_TOGETHER", 0)
    graphs = {"original": chain(5), "hardened": chain(6), "detector": chain(7)}
    for proto in graphs.values():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3), "weight"))
    interface = find_interface(graphs["original"])
    found = measure_latency(graphs, interface, batch_sizes=(2,), seconds=0.1)
    assert loaded == [["original", "hardened"], ["original", "detector"]]
    assert [item.graph for item in found] == list(graphs)


def test_the_budget_of_time_is_kept() -> None:
    graphs = {"original": chain(5)}
    start = time.perf_counter()
    measure_latency(graphs, find_interface(graphs["original"]), seconds=0.2)
    assert time.perf_counter() - start < 2


def test_a_fixed_batch_takes_the_place_of_batch_sizes() -> None:
    proto = toy_models.original_proto()
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 3
    found = measure_latency({"original": proto}, find_interface(proto), seconds=0.05)
    assert [item.batch_size for item in found] == [3]


def test_open_axes_need_samples() -> None:
    proto = toy_models.original_proto()
    interface = replace(find_interface(proto), input_shape=(None, None))
    with pytest.raises(DataError, match="open axes"):
        measure_latency({"original": proto}, interface, seconds=0.05)
    x = toy_models.clean(5).x
    assert measure_latency({"original": proto}, interface, x=x, seconds=0.05)
    with pytest.raises(DataError, match="no samples"):
        measure_latency({"original": proto}, interface, x=x[:0], seconds=0.05)


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"batch_sizes": ()}, {"seconds": 0}])
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    proto = toy_models.original_proto()
    with pytest.raises(OptionError, match="latency needs"):
        measure_latency({"original": proto}, find_interface(proto), **options)  # type: ignore[arg-type]


def test_the_inputs_follow_the_seed() -> None:
    from mmbm_onnx.evaluation.latency import batch_of

    interface = find_interface(toy_models.original_proto())
    first, again, other = (
        batch_of(interface, None, 4, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
