"""Adversarial Neuron Pruning (Wu and Wang, arXiv 2110.14430)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.defence.peers.tuning import tensors

_REACH = 0.4  # of the perturbation, as a share of weight and bias
_TRADE = 0.2  # weight of the natural loss against 1 - it of the perturbed one
_RATE = 0.2
_STEPS = 2000
_BATCH = 128
_THRESHOLDS = tuple(step / 20 for step in range(1, 19))  # neurons with a smaller mask are pruned
# Accuracy on the clean samples that pruning may cost. BackdoorBench's acc_ratio of 0.1 is relative,
# of test samples, and of the thresholds within it the one that leaves the lowest ASR is taken.
_MOST_LOST = 0.1


class _Neurons(nn.Module):
    """A BatchNorm whose channels are masked and perturbed: (m + d) w, (1 + e) b."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.mask = nn.Parameter(torch.ones_like(norm.weight))
        self.weight_shift = nn.Parameter(torch.zeros_like(norm.weight))
        self.bias_shift = nn.Parameter(torch.zeros_like(norm.bias))
        self.perturbed = False
        self.learning = True

    def forward(self, x: Tensor) -> Tensor:
        shift = self.weight_shift if self.perturbed else 0
        other = self.bias_shift if self.perturbed else 0
        # The authors learn masks with the statistics of the batch.
        known = (None, None) if self.learning else (self.norm.running_mean, self.norm.running_var)
        return functional.batch_norm(
            x,
            *known,
            self.norm.weight * (self.mask + shift),
            self.norm.bias * (1 + other),
            self.learning,
            0.0,
            self.norm.eps,
        )


def adversarial_neuron_pruning(
    network: nn.Module, x: np.ndarray, y: np.ndarray, seed: int
) -> nn.Module:
    """Learn masks that keep clean loss low under the worst small change of neurons, then prune."""
    images, labels = tensors(network, x, y)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    neurons = _wrap(network)
    shifts = [part for found in neurons for part in (found.weight_shift, found.bias_shift)]
    optimizer = torch.optim.SGD([found.mask for found in neurons], lr=_RATE, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)

    def loss(image: Tensor, label: Tensor, *, perturbed: bool) -> Tensor:
        for found in neurons:
            found.perturbed = perturbed
        return functional.cross_entropy(network(image), label)

    for _ in range(_STEPS):
        pick = torch.randint(len(x), (min(_BATCH, len(x)),), generator=generator)
        image, label = images[pick], labels[pick]
        with torch.no_grad():
            for shift in shifts:
                shift.copy_(_REACH * (2 * torch.rand(shift.shape, generator=generator) - 1))
        gradients = torch.autograd.grad(loss(image, label, perturbed=True), shifts)
        with torch.no_grad():
            # One step of full size from a random place, as the authors' code has it: up to twice
            # the reach away.
            for shift, gradient in zip(shifts, gradients, strict=True):
                shift.add_(_REACH * gradient.sign())
        optimizer.zero_grad()
        both = _TRADE * loss(image, label, perturbed=False)
        both = both + (1 - _TRADE) * loss(image, label, perturbed=True)
        both.backward()
        optimizer.step()
        with torch.no_grad():
            for found in neurons:
                found.mask.clamp_(0, 1)
    _prune(network, neurons, images, labels)
    return network


@torch.no_grad()
def _prune(network: nn.Module, neurons: list[_Neurons], images: Tensor, labels: Tensor) -> None:
    """Prune up to the highest threshold that accuracy on the clean samples bears."""
    learned = [found.mask.clone() for found in neurons]
    for found in neurons:
        found.learning = False

    def accuracy(threshold: float) -> float:
        for found, mask in zip(neurons, learned, strict=True):
            found.perturbed = False
            found.mask.copy_((mask > threshold).float())
        return float((network(images).argmax(1) == labels).float().mean())

    before, chosen = accuracy(-1.0), -1.0  # no mask is as low: nothing is pruned
    for threshold in _THRESHOLDS:
        if before - accuracy(threshold) > _MOST_LOST:
            break
        chosen = threshold
    accuracy(chosen)


def _wrap(network: nn.Module) -> list[_Neurons]:
    found = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(parent, _Neurons):
                neurons = _Neurons(child)
                setattr(parent, name, neurons)
                found.append(neurons)
    return found
