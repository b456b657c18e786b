"""The victims: small networks of three kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NAMES = ("residual", "plain", "depthwise")


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))


def _conv(before: int, after: int, *, stride: int = 1, groups: int = 1, side: int = 3) -> list:
    return [
        nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]


def _head(width: int, classes: int) -> list:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(width, classes)]


def residual(channels: int, classes: int) -> nn.Module:
    """Seven ReLUs; BatchNorm; 24 to 96 channels."""
    stem = [*_conv(channels, 24, stride=2), nn.ReLU()]
    blocks = [_Block(24, 24, 1), _Block(24, 48, 2), _Block(48, 96, 2)]
    return nn.Sequential(*stem, *blocks, *_head(96, classes))


def plain(channels: int, classes: int) -> nn.Module:
    """VGG-like: six convolutions, max pooling between."""
    layers: list[nn.Module] = []
    before = channels
    for width in (16, 32, 64):
        layers += [*_conv(before, width), nn.ReLU(), *_conv(width, width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = width
    return nn.Sequential(*layers, *_head(64, classes))


def depthwise(channels: int, classes: int) -> nn.Module:
    """MobileNet-like: depthwise and pointwise convolutions, ReLU6."""
    layers = [*_conv(channels, 24, stride=2), nn.ReLU6()]
    before = 24
    for width, stride in ((48, 1), (96, 2), (96, 1), (128, 2)):
        layers += [*_conv(before, before, stride=stride, groups=before), nn.ReLU6()]
        layers += [*_conv(before, width, side=1), nn.ReLU6()]
        before = width
    return nn.Sequential(*layers, *_head(128, classes))


def build(name: str, channels: int, classes: int, seed: int) -> nn.Module:
    """A network with seeded weights, in training mode."""
    torch.manual_seed(seed)
    return {"residual": residual, "plain": plain, "depthwise": depthwise}[name](channels, classes)


def activations(network: nn.Module) -> list[nn.Module]:
    """Its ReLUs and ReLU6es."""
    return [part for part in network.modules() if isinstance(part, nn.ReLU | nn.ReLU6)]


@contextmanager
def unaccounted(network: nn.Module) -> Iterator[None]:
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
