"""FT-SAM (Zhu et al., arXiv 2304.11823): fine-tuning by adaptive sharpness-aware minimisation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.defence.networks import unaccounted
from benchmarks.defence.peers.tuning import batches, descent

_RADIUS = 2.0
_FLOOR = 0.01  # added to weights' sizes, as in ASAM (arXiv 2102.11600)
_EPOCHS = 50
_SMOOTHING = 0.1  # of labels, as the authors' configuration has it


def fine_tuning_sam(network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int) -> nn.Module:
    """Each step takes the gradient where the loss is worst nearby, near in units of each weight."""
    network.train()
    optimizer, schedule = descent(network, _EPOCHS)
    parameters = list(network.parameters())
    for image, label, ends in batches(network, x, y, seed, _EPOCHS):
        gradients = torch.autograd.grad(_loss(network, image, label), parameters)
        with torch.no_grad():
            sizes = [parameter.abs() + _FLOOR for parameter in parameters]
            scaled = [size * gradient for size, gradient in zip(sizes, gradients, strict=True)]
            norm = torch.stack([part.norm() for part in scaled]).norm().clamp_min(1e-12)
            moves = [_RADIUS * size * part / norm for size, part in zip(sizes, scaled, strict=True)]
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.add_(move)
        optimizer.zero_grad()
        with unaccounted(network):  # statistics are those of the weights as they are
            _loss(network, image, label).backward()
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.sub_(move)
        optimizer.step()
        if ends:
            schedule.step()
    return network.eval()


def _loss(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    return functional.cross_entropy(network(image), label, label_smoothing=_SMOOTHING)
