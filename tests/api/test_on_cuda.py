"""The whole way on an NVIDIA GPU: learning in torch, graphs in ONNX Runtime's CUDA provider."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from quadrants import TARGET

from mmbm_onnx import bench, harden, verify
from mmbm_onnx.runtime.sessions import Session

CUDA = "CUDAExecutionProvider"

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or CUDA not in onnxruntime.get_available_providers(),
    reason="needs a CUDA device, torch for CUDA and onnxruntime-gpu",
)

QUICK = {"epochs": 25, "batch_size": 60, "threads": 1}
ON_CUDA = {"device": "cuda", "provider": "cuda"}


@pytest.fixture(scope="module")
def made(case):
    """A hardening on the GPU alone."""
    return harden(case.model, case.npz, **ON_CUDA, **QUICK)


def triggered(case) -> np.ndarray:
    with np.load(case.triggered) as file:
        return file["x"].astype(np.float32) / 255


def on(provider: str, proto, x: np.ndarray) -> dict[str, np.ndarray]:
    session = Session(proto, provider=provider)
    (name,) = session.input_names
    return dict(zip(session.output_names, session.run(None, {name: x}), strict=True))


def test_backdoor_is_stopped_on_both_providers(case, made) -> None:
    assert made.report["execution"]["device"].startswith("cuda")
    assert made.report["execution"]["providers"][0] == CUDA
    x = triggered(case)
    for provider in ("cuda", "cpu"):
        before = on(provider, case.model, x)["logits"].argmax(1)
        after = on(provider, made.detector, x)["logits"].argmax(1)
        assert (before == TARGET).mean() > 0.9
        assert (after == TARGET).mean() < 0.1


@pytest.mark.parametrize("shadow", ["folded", "float", "half"])
def test_detector_answers_on_cuda_as_on_the_cpu(case, shadow) -> None:
    made = harden(case.model, case.npz, **ON_CUDA, **QUICK, shadow=shadow)
    x = np.concatenate([case.test[0], triggered(case)])
    gpu, cpu = (on(provider, made.detector, x) for provider in ("cuda", "cpu"))
    assert gpu.keys() == cpu.keys()
    alike = gpu["mmbm_flagged"] == cpu["mmbm_flagged"]
    np.testing.assert_allclose(gpu["logits"][alike], cpu["logits"][alike], rtol=1e-3, atol=1e-3)
    for name in ("mmbm_flagged", "mmbm_suspected_class"):
        # A score may lie at the threshold, no more than that.
        assert (gpu[name] != cpu[name]).mean() <= 0.01, name


def test_files_of_either_machine_pass_verify_on_cuda(case, made) -> None:
    on_cpu = harden(case.model, case.npz, device="cpu", **QUICK)
    for result in (made, on_cpu):
        for provider in ("cuda", "cpu"):
            found = verify(
                case.model,
                result.hardened,
                case.test,
                detector=result.detector,
                provider=provider,
                max_accuracy_drop=0.1,
            )
            assert found.passed, found.to_dict()


def test_same_seed_gives_nearly_the_same_bounds_on_cuda(case, made) -> None:
    again = harden(case.model, case.npz, **ON_CUDA, **QUICK)
    for name, bound in made.bounds.items():
        np.testing.assert_allclose(again.bounds[name], bound, rtol=1e-2)


def test_graphs_are_timed_on_cuda(case, made) -> None:
    found = bench(
        case.model, made.hardened, made.detector, provider="cuda", samples=case.npz, seconds=0.5
    )
    assert found.providers[0] == CUDA
    assert all(timing.latency.seconds > 0 for timing in found.timings)


def test_bound_runs_work_and_tensorfloat_32_is_near(case) -> None:
    session = Session(case.model, provider="cuda", defaults=True)
    x = np.ascontiguousarray(case.test[0][:4])
    session.bound({session.input_names[0]: x})()
    full = on("cpu", case.model, x)["logits"]
    np.testing.assert_allclose(session.run(None, {session.input_names[0]: x})[0], full, atol=0.05)
