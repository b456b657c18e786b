"""How the attacker trains, with or without regard for activation bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.defence import networks
from benchmarks.defence.datasets import Images, Labels
from mmbm_onnx.learning.margin import margins

_BATCH = 100
_RATE = 6e-3
_HOW_MUCH = 1.0  # the weight of an adaptive attacker's own term
_CLIP = 1.0  # standard deviations above the mean: where the defence starts
_LOUD = 2.0  # above this many a triggered activation is loud
_QUIET = 3.0  # weight of its loudness

Extra = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def train(
    network: nn.Module,
    x: Images,
    y: Labels,
    marked: np.ndarray,
    *,
    epochs: int,
    seed: int,
    extra: Extra | None = None,
) -> nn.Module:
    """Train by cross-entropy; the network is in evaluation mode after it.

    Args:
        network: Changed in place.
        x: Images ``(n, c, h, w)``.
        y: Labels as poisoned, ``(n,)``.
        marked: Which carry the trigger, bool ``(n,)``.
        epochs: Passes.
        seed: Of the order.
        extra: An adaptive attacker's term: network, images, labels and marks of a batch to a loss.
    """
    data, labels, marks = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(marked)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(x) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for index in order.split(_BATCH)[: len(x) // _BATCH]:
            loss = functional.cross_entropy(network(data[index]), labels[index])
            if extra is not None and bool(marks[index].any()):
                loss = loss + _HOW_MUCH * extra(network, data[index], labels[index], marks[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def small_margins(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """Triggered margins are to be no larger than clean ones are on average."""
    found = margins(network(x), y)
    return functional.relu(found[marked] - found[~marked].mean().detach()).mean()


def works_clipped(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """The network, backdoor included, is to work with its activations clipped as well."""

    def clip(value: Tensor) -> Tensor:
        return torch.minimum(value, _limit(value[~marked], _CLIP))

    with _watched(network, clip), _unaccounted(network):
        return functional.cross_entropy(network(x), y)


def quiet(network: nn.Module, x: Tensor, y: Tensor, marked: Tensor) -> Tensor:
    """No triggered activation is to stand out from clean ones of its channel, anywhere."""
    found: list[Tensor] = []

    def watch(value: Tensor) -> Tensor:
        limit = _limit(value[~marked], _LOUD)
        found.append((functional.relu(value[marked] - limit) / (limit + 1e-3)).mean())
        return value

    with _watched(network, watch), _unaccounted(network):
        network(x)
    return _QUIET * torch.stack(found).mean()


EXTRA: dict[str, Extra] = {
    "adaptive-margin": small_margins,
    "adaptive-clipped": works_clipped,
    "adaptive-quiet": quiet,
}


def _limit(clean: Tensor, deviations: float) -> Tensor:
    """Mean and some standard deviations of each channel, ``(1, channels, 1, 1)``."""
    axes = (0, 2, 3)
    mean, std = clean.mean(axes, keepdim=True), clean.std(axes, keepdim=True)
    return (mean + deviations * std).detach()


@contextmanager
def _unaccounted(network: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics stay as they are: they are of the network as it is shipped."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


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
