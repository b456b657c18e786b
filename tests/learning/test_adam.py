"""Adam: the same steps as torch's, without what torch's imports."""

import subprocess
import sys
import textwrap

import numpy as np
import onnx
import torch

from mmbm_onnx.learning.adam import Adam


def _gradients(step: int) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(step)
    first, second = torch.randn(5, generator=generator), torch.randn((), generator=generator)
    return [first * 10.0**step, None if step == 2 else second]


def test_steps_are_those_of_torch() -> None:
    ours = [torch.ones(5, requires_grad=True), torch.tensor(2.0, requires_grad=True)]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    adam, reference = Adam(ours, 0.05), torch.optim.Adam(theirs, lr=0.05)
    for step in range(6):
        rate = 0.05 / (step + 1)
        adam.rate = rate
        for group in reference.param_groups:
            group["lr"] = rate
        gradients = _gradients(step)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        adam.step(gradients)
        reference.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.requires_grad and mine.is_leaf
            assert torch.equal(mine, other)


def test_a_run_goes_on_from_a_state_as_if_it_had_not_stopped() -> None:
    whole = [torch.ones(5), torch.tensor(2.0)]
    adam = Adam(whole, 0.1)
    for step in range(3):
        adam.step(_gradients(step))
    later = [one.clone() for one in whole]
    state = {name: value.clone() for name, value in adam.state().items()}
    resumed = Adam(later, 0.1)
    resumed.restore(state)
    for step in range(3, 6):
        adam.step(_gradients(step))
        resumed.step(_gradients(step))
    for one, other in zip(whole, later, strict=True):
        assert torch.equal(one, other)


def test_learning_does_not_import_the_compiler_of_torch(planted_proto, clean, tmp_path) -> None:
    onnx.save(planted_proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "clean.npz", x=clean.x, y=clean.y)
    script = """
        import sys
        import mmbm_onnx
        for method in ("mmac-universal", "mmac"):
            mmbm_onnx.harden("model.onnx", "clean.npz", method=method, epochs=1, threads=1)
        assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
