"""Where torch runs, and how it is set up while it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmbm_onnx.errors import OptionError, RuntimeMissingError


def torch_device(name: str) -> torch.device:
    """The torch device of an option.

    Raises:
        OptionError: Not a device name.
        RuntimeMissingError: CUDA was asked for and torch has none.
    """
    if not isinstance(name, str):
        raise OptionError(f"device is {name!r}; use auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise OptionError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise RuntimeMissingError(
                f"device {name!r} was asked for and torch finds {count} CUDA devices; install a "
                "CUDA build of torch, or use --device cpu"
            )
    return device


def _flushes_denormals() -> bool:
    """Whether this thread's arithmetic takes denormals for zero; torch has no getter for it."""
    denormal = torch.tensor([1e-40], dtype=torch.float32, device="cpu")
    return bool((denormal * 1 == 0).item())


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Threads, denormals, determinism and full precision for one job, put back after it."""
    before = torch.get_num_threads()
    flushed = _flushes_denormals()
    # Not use_deterministic_algorithms, which imports torch's compiler, for longer than a second.
    mode = torch.get_deterministic_debug_mode()
    if threads is not None:
        torch.set_num_threads(threads)
    # Activations near zero would otherwise become denormal and an order of magnitude slower.
    torch.set_flush_denormal(True)
    torch.set_deterministic_debug_mode("warn")
    # TensorFloat-32 keeps 10 bits of a number: too few for the parity gate, on CUDA alone.
    short = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = short
        torch.set_flush_denormal(flushed)
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(before)
