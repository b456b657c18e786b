"""Defences that change weights, as a yardstick; they need the training framework, we do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from benchmarks.defence.peers.anp import adversarial_neuron_pruning
from benchmarks.defence.peers.ft_sam import fine_tuning_sam
from benchmarks.defence.peers.pruning import fine_pruning
from benchmarks.defence.peers.tuning import fine_tuning

Peer = Callable[[nn.Module, np.ndarray, np.ndarray, int], nn.Module]

# Network, clean images and labels, seed; the network is changed, where it is, and handed back.
PEERS: dict[str, Peer] = {
    "ft": fine_tuning,
    "fp": fine_pruning,
    "anp": adversarial_neuron_pruning,
    "ft-sam": fine_tuning_sam,
}


def modules_of(name: str) -> tuple[str, str]:
    """Names of the modules that a peer is written in."""
    return PEERS[name].__module__, fine_tuning.__module__


__all__ = ["PEERS", "modules_of"]
