"""How the attacker trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.defence.datasets import Images, Labels

_BATCH = 100
_RATE = 6e-3
_HOW_MUCH = 1.0  # the weight of an adaptive attacker's own term

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
        extra: An adaptive attacker's term (see ``adaptive``): network, images, labels and marks of
            a batch to a loss.
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
