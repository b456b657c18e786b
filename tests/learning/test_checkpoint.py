"""Learning that is stopped and goes on ends as learning that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbm_onnx.errors import DataError
from mmbm_onnx.learning.checkpoint import Checkpoint, State, fingerprint
from mmbm_onnx.learning.fit import Learned, learn_bounds
from mmbm_onnx.learning.settings import METHODS, settings_for
from mmbm_onnx.types import Progress

EPOCHS = 15
STEPS = 3 * EPOCHS  # 120 samples, 40 at a time


class StoppedError(Exception):
    pass


def stopping_at(step: int) -> Callable[[Progress], None]:
    def heed(progress: Progress) -> None:
        if progress.phase == "learn" and progress.step == step:
            raise StoppedError

    return heed


@pytest.fixture
def learn(planted, sites, clean):
    def run(method: str, path: Path | None = None, **options) -> Learned:
        stop = options.pop("stop", None)
        job = options.pop("job", "job")
        kept = None if path is None else Checkpoint(path, job, **options)
        settings = settings_for(method, epochs=EPOCHS, batch_size=40)
        return learn_bounds(
            planted,
            clean,
            sites,
            settings,
            calibration=clean,
            seed=3,
            progress=None if stop is None else stopping_at(stop),
            checkpoint=kept,
        )

    return run


def same(one: Learned, other: Learned) -> bool:
    equal = all(np.array_equal(one.bounds[name], other.bounds[name]) for name in one.bounds)
    return equal and (one.history, one.warnings) == (other.history, other.warnings)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [4, STEPS // 2, STEPS])
def test_it_goes_on_where_it_stood(learn, tmp_path: Path, method: str, step: int) -> None:
    path = tmp_path / "state"
    whole = learn(method)
    with pytest.raises(StoppedError):
        learn(method, path, every=0, stop=step)
    epoch = json.loads(np.load(path)["header"].tobytes())["values"]["epoch"]
    assert epoch == (step - 1) // 3
    torch.manual_seed(99)  # nothing depends on torch's own generator
    assert same(learn(method, path, every=0, resume=True), whole)
    # Once more, from the end: only what comes after the epochs is done again.
    assert same(learn(method, path, every=0, resume=True, stop=1), whole)


def test_without_a_file_it_starts_at_the_beginning(learn, tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert same(learn("mmbm", path, resume=True), learn("mmbm"))
    assert not path.exists()  # it took no minute


def test_without_resume_the_file_is_not_read(learn, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"nothing")
    assert same(learn("mmbm", path), learn("mmbm"))


def test_another_job_is_refused(learn, tmp_path: Path) -> None:
    path = tmp_path / "state"
    learn("mmbm", path, every=0)
    with pytest.raises(DataError, match=r"another job.*delete it"):
        learn("mmbm", path, job="other", resume=True)


def test_a_damaged_file_is_refused(learn, tmp_path: Path) -> None:
    path = tmp_path / "state"
    learn("mmbm", path, every=0)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    damaged = [b"", good[:100], good[: len(good) // 2], (tmp_path / "other.npz").read_bytes()]
    for _ in range(200):
        flipped = bytearray(good)
        flipped[rng.integers(len(good))] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    whole, refused = learn("mmbm"), 0
    for content in damaged:
        path.write_bytes(content)
        try:
            found = learn("mmbm", path, resume=True)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert same(found, whole)  # a bit that nobody reads
    assert refused > 100


def test_a_state_that_cannot_be_written_is_a_warning(learn, tmp_path: Path) -> None:
    found = learn("mmbm", tmp_path / "missing" / "state", every=0)
    (warning,) = [line for line in found.warnings if "could not be resumed" in line]
    assert "\n" not in warning
    whole = learn("mmbm")
    assert all(np.array_equal(found.bounds[name], whole.bounds[name]) for name in whole.bounds)


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    state = State(
        {"epoch": 3, "history": [{"loss": 0.1}]},
        {
            "a/0": torch.tensor([1.5]),
            "a/1": torch.tensor(2, dtype=torch.int64),
            "b": torch.empty(0),
        },
    )
    kept = Checkpoint(tmp_path / "state", "job", resume=True)
    kept.save(state)
    found = kept.load()
    assert found is not None
    assert found.values == state.values
    assert found.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert [value.item() for value in found.part("a").values()] == [1.5, 2]


def test_fingerprints_tell_jobs_apart() -> None:
    x = np.arange(6, dtype=np.float32)
    jobs = [
        fingerprint([1], [x]),
        fingerprint([2], [x]),
        fingerprint([1], [x.reshape(2, 3)]),
        fingerprint([1], [x.astype(np.float64)]),
        fingerprint([1], [x + 1]),
        fingerprint([1], [x, None]),
        fingerprint([1], []),
    ]
    assert len(set(jobs)) == len(jobs)
    assert fingerprint([1], [x.copy()]) == jobs[0]
