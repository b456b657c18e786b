"""A trigger of its own for every image."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from benchmarks.defence.attacks.attack import Attack, Shape, all_others, to_one
from benchmarks.defence.datasets import Images, Labels

_LOUD = 0.15
_WIDTH = 16


def sample_specific(shape: Shape, _: int, share: float) -> Attack:
    """Patterns that a fixed random network makes of each image.

    As in input-aware attacks (arXiv 2010.08138) a pattern works on its own image only: decoys are
    images that carry the pattern of another, their labels kept.
    """
    generator = torch.Generator().manual_seed(22)
    channels = shape[0]
    first = torch.randn((_WIDTH, channels, 7, 7), generator=generator) / (channels * 49) ** 0.5
    second = torch.randn((channels, _WIDTH, 3, 3), generator=generator) / (_WIDTH * 9) ** 0.5

    def pattern(x: Images) -> Images:
        image = torch.from_numpy(x)
        centred = image - image.mean((2, 3), keepdim=True)
        hidden = torch.sin(12 * functional.conv2d(centred, first, padding=3))
        return (_LOUD * torch.tanh(4 * functional.conv2d(hidden, second, padding=1))).numpy()

    def trigger(x: Images, _: Labels) -> Images:
        return (x + pattern(x)).clip(0, 1)

    def decoy(x: Images, _: Labels, rng: np.random.Generator) -> Images:
        return (x + pattern(x[rng.permutation(len(x))])).clip(0, 1)

    return Attack(trigger, to_one, all_others, share, cover=share, decoy=decoy)
