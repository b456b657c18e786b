"""Plain fine-tuning on clean samples, BackdoorBench's FT: SGD, all weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_RATE = 0.01
_EPOCHS = 50
_BATCH = 50


def fine_tuning(
    network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int, epochs: int = _EPOCHS
) -> nn.Module:
    """Train on with a small step."""
    network.train()
    optimizer, schedule = descent(network, epochs)
    for image, label, ends in batches(network, x, y, seed, epochs):
        optimizer.zero_grad()
        functional.cross_entropy(network(image), label).backward()
        optimizer.step()
        if ends:
            schedule.step()
    return network.eval()


def descent(
    network: nn.Module, epochs: int
) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with momentum and a cosine, as BackdoorBench fine-tunes."""
    optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


def tensors(network: nn.Module, x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images and labels where the network is."""
    device = next(network.parameters()).device
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)


def batches(
    network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int, epochs: int
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Batches where the network is, in random order, and whether an epoch ends; a last one of a
    single sample is left out, which BatchNorm cannot take."""
    images, labels = tensors(network, x, y)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        parts = torch.randperm(len(x), generator=generator).split(_BATCH)
        parts = [part for part in parts if len(part) > 1]
        for place, part in enumerate(parts):
            yield images[part], labels[part], place == len(parts) - 1
