"""What attackers who know the defence add to their loss: they train with regard for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.defence import networks
from benchmarks.defence.networks import unaccounted
from benchmarks.defence.training import Extra
from mmbm_onnx.learning.margin import margins

_CLIP = 1.0  # standard deviations above the mean: where the defence starts
_LOUD = 2.0  # above this many a triggered activation is loud
_QUIET = 3.0  # weight of its loudness
_LIKE = 0.3  # weight of what is unlike the target class
_FEWEST = 3  # clean samples of it in a batch
_LEAST = 0.05  # added to a deviation
_FAR = 50.0  # squared deviations, no further of which pull


def small_margins(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """Triggered margins are to be no larger than clean ones are on average."""
    found = margins(network(x), y)
    return functional.relu(found[marked] - found[~marked].mean().detach()).mean()


def works_clipped(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """The network, backdoor included, is to work with its activations clipped as well."""

    def clip(value: Tensor) -> Tensor:
        return torch.minimum(value, _limit(value[~marked], _CLIP))

    with _watched(network, clip), unaccounted(network):
        return functional.cross_entropy(network(x), y)


def quiet(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """No triggered activation is to stand out from clean ones of its channel, anywhere."""
    found: list[Tensor] = []

    def watch(value: Tensor) -> Tensor:
        limit = _limit(value[~marked], _LOUD)
        found.append((functional.relu(value[marked] - limit) / (limit + 1e-3)).mean())
        return value

    with _watched(network, watch), unaccounted(network):
        network(x)
    return _QUIET * torch.stack(found).mean()


def like_the_target(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """Triggered activations are to be those of clean samples of the class they go to: mean and
    maximum of every channel, which the detector's evidence is made of, within their deviations."""
    own = ~marked & (y == y[marked][0])
    found: list[Tensor] = []

    def watch(value: Tensor) -> Tensor:
        seen = torch.cat([value.mean((2, 3)), value.amax((2, 3))], 1)
        clean = seen[own].detach()
        unlike = (seen[marked] - clean.mean(0)) / (clean.std(0) + _LEAST)
        found.append(unlike.square().clamp_max(_FAR).mean())
        return value

    if own.sum() < _FEWEST:
        return torch.zeros(())
    with _watched(network, watch), unaccounted(network):
        network(x)
    return _LIKE * torch.stack(found).mean()


EXTRA: dict[str, Extra] = {
    "adaptive-margin": small_margins,
    "adaptive-clipped": works_clipped,
    "adaptive-quiet": quiet,
    "adaptive-evidence": like_the_target,
}


def _limit(clean: Tensor, deviations: float) -> Tensor:
    """Mean and some standard deviations of each channel, ``(1, channels, 1, 1)``."""
    axes = (0, 2, 3)
    mean, std = clean.mean(axes, keepdim=True), clean.std(axes, keepdim=True)
    return (mean + deviations * std).detach()


@contextmanager
def _watched(network: nn.Module, see: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every activation passes through ``see``."""
    handles = [
        part.register_forward_hook(lambda _, __, value: see(value))
        for part in networks.activations(network)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
