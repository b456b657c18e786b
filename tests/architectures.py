"""Small networks of many kinds, and how torch exports them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

CLASSES = 5
IMAGE = (3, 16, 16)


def conv(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(),
        nn.LazyLinear(16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inside, outside, stride=stride),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.short = nn.Conv2d(inside, outside, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def residual() -> nn.Module:
    return nn.Sequential(conv(3, 8), Residual(8, 8, 1), Residual(8, 16, 2), head(16))


def depthwise() -> nn.Module:
    def block(inside: int, outside: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inside, 2 * inside, 1),
            nn.BatchNorm2d(2 * inside),
            nn.ReLU6(),
            nn.Conv2d(2 * inside, 2 * inside, 3, stride, 1, groups=2 * inside),
            nn.ReLU6(),
            nn.Conv2d(2 * inside, outside, 1),
            nn.BatchNorm2d(outside),
        )

    return nn.Sequential(conv(3, 8), block(8, 8, 2), block(8, 12, 1), nn.Hardswish(), head(12))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def squeeze_excite() -> nn.Module:
    return nn.Sequential(conv(3, 8), SqueezeExcite(8), conv(8, 8), nn.SiLU(), head(8))


class Inception(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        self.one = conv(inside, 4, 1)
        self.two = nn.Sequential(conv(inside, 4, 1), conv(4, 6, 3))
        self.pool = nn.Sequential(
            nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(inside, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x), self.pool(x)], dim=1)


def inception() -> nn.Module:
    return nn.Sequential(conv(3, 8), Inception(8), nn.LocalResponseNorm(5), head(14))


class Shuffle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(conv(half, half, 1), conv(half, half, groups=half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffle() -> nn.Module:
    return nn.Sequential(conv(3, 8), Shuffle(8), Shuffle(8), head(8))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 17, 16) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norms[0](x)).reshape(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, 16))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x)[:, 0])


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.spatial = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        x = x + (self.mlp(y) * self.scale).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Pyramid(nn.Module):
    """Up and down again, with padding by reflection and group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.ReflectionPad2d((1, 2, 0, 1)), conv(3, 8, stride=2))
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.down(x))
        wide = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        near = nn.functional.interpolate(y, size=wide.shape[2:], mode="nearest")
        return self.head(torch.relu(self.up(y)) + wide - near)


def audio() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, 2, 2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, dilation=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(6, 6, 3, 2, 1),
        nn.ReLU(),
        nn.AvgPool3d(2),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 6, batch_first=True)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, IMAGE),
    "vgg": (vgg, IMAGE),
    "residual": (residual, IMAGE),
    "depthwise": (depthwise, IMAGE),
    "squeeze_excite": (squeeze_excite, IMAGE),
    "inception": (inception, IMAGE),
    "shuffle": (shuffle, IMAGE),
    "transformer": (VisionTransformer, IMAGE),
    "convnext": (ConvNext, IMAGE),
    "pyramid": (Pyramid, IMAGE),
    "audio": (audio, (2, 40)),
    "volume": (volume, (1, 8, 8, 8)),
    "recurrent": (Recurrent, (7, 4)),
}
# By the default exporter (None), and by the TorchScript one, which has no attention at opset 11.
EXPORTS = [
    (name, opset)
    for name in NETWORKS
    for opset in (None, 11, 17)
    if (name, opset) != ("transformer", 11)
]


@cache
def network(name: str) -> nn.Module:
    """The network in inference mode, with lively BatchNorm statistics."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module = make()
    module(torch.randn(8, *shape))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.2)
    return module.eval().requires_grad_(False)
