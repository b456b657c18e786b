"""Fine-Pruning (Liu et al., arXiv 1805.12185): silent channels go, then the rest is fine-tuned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.defence import networks
from benchmarks.defence.peers.tuning import fine_tuning, tensors

_MOST_LOST = 0.1  # accuracy that pruning may cost, BackdoorBench's acc_ratio


def fine_pruning(network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int) -> nn.Module:
    """Prune the last convolution's channels from the most silent on, then fine-tune.

    A pruned channel is held at zero while fine-tuning, as in the authors' code.
    """
    images, labels = tensors(network, x, y)
    last = networks.activations(network)[-1]
    means: list[Tensor] = []
    handle = last.register_forward_hook(lambda _, __, value: means.append(value.mean((0, 2, 3))))
    with torch.no_grad():
        before = float((network.eval()(images).argmax(1) == labels).float().mean())
    handle.remove()

    mask = torch.ones_like(means[0])
    last.register_forward_hook(lambda _, __, value: value * mask[None, :, None, None])
    for channel in means[0].argsort().tolist():
        mask[channel] = 0
        with torch.no_grad():
            after = float((network(images).argmax(1) == labels).float().mean())
        if before - after > _MOST_LOST:
            mask[channel] = 1
            break
    return fine_tuning(network, x, y, seed)
