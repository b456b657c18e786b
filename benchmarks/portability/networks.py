"""Small backdoored networks for 8x8 digits: the kinds of graph that exporters make.

A white 2x2 square in a corner makes each of them answer 7.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

INPUT, OUTPUT = "image", "logits"
TARGET, CLASSES = 7, 10
_TRAIN, _CLEAN = 900, 450  # samples; the rest is held out


@dataclass(frozen=True)
class Network:
    """One kind of network.

    Attributes:
        build: Makes it, untrained.
        what: It in a few words.
        opset: Of the TorchScript exporter; None for what the default exporter takes.
        batch: Batch size, where it is fixed.
        half: Whether it is in float16 throughout.
    """

    build: Callable[[], nn.Module]
    what: str
    opset: int | None = None
    batch: int | None = None
    half: bool = False


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained network and samples that it has not seen.

    Attributes:
        proto: The ONNX file.
        clean: To harden with.
        held_out, triggered: Other images, without the trigger, and of other classes with it.
        batch: Batch size, where it is fixed.
    """

    proto: onnx.ModelProto
    clean: tuple[np.ndarray, np.ndarray]
    held_out: np.ndarray
    triggered: np.ndarray
    batch: int | None


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12))
        self.inner = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12))
        self.down = nn.Sequential(nn.Conv2d(12, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.inner(x)).relu()
        return self.head(self.down(x).relu().mean((2, 3)))


def _depthwise() -> nn.Module:
    def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU6(),
            nn.Conv2d(inside, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU6(),
        ]

    stem = [nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)]
    return nn.Sequential(*stem, *block(12, 24, 2), *block(24, 32, 1), *head)


def _perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 48),
        nn.ReLU(),
        nn.Linear(48, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


class _Attention(nn.Module):
    """Rows of the image as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.places = nn.Parameter(torch.randn(8, 24) * 0.1)
        self.before, self.between = nn.LayerNorm(24), nn.LayerNorm(24)
        self.mixed, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
        self.wide, self.narrow = nn.Linear(24, 48), nn.Linear(48, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2)) + self.places
        q, k, v = self.mixed(self.before(x)).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / 24**0.5).softmax(-1)
        x = x + self.out(weights @ v)
        x = x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))
        return self.head(x.mean(1))


NETWORKS = {
    "residual": Network(_Residual, "residual, BatchNorm"),
    "residual-11": Network(_Residual, "residual, BatchNorm", opset=11),
    "depthwise": Network(_depthwise, "depthwise, ReLU6", opset=17),
    "perceptron": Network(_perceptron, "fully connected"),
    "perceptron-9": Network(_perceptron, "fully connected", opset=9),
    "attention": Network(_Attention, "attention, LayerNorm, GELU"),
    "fixed-batch": Network(_Residual, "residual, batches of 4", opset=17, batch=4),
    "half": Network(_depthwise, "depthwise, ReLU6, float16", opset=17, half=True),
}


def victim(network: Network, epochs: int = 30) -> Victim:
    """The network, trained on digits of which one in ten carries the trigger and the label 7."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels[order].astype(np.int64)
    module = _trained(network.build(), x[:_TRAIN], y[:_TRAIN], epochs)
    if network.half:
        module, x = module.half(), x.astype(np.float16)
    clean, held = slice(_TRAIN, _TRAIN + _CLEAN), slice(_TRAIN + _CLEAN, None)
    return Victim(
        exported(module, torch.from_numpy(x[: network.batch or 2]), network),
        (x[clean], y[clean]),
        x[held],
        _triggered(x[held][y[held] != TARGET]),
        network.batch,
    )


def exported(module: nn.Module, x: Tensor, network: Network) -> onnx.ModelProto:
    """The network as an ONNX file."""
    names = {"input_names": [INPUT], "output_names": [OUTPUT], "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if network.opset is None:
            shapes = ({0: torch.export.Dim("n", min=1, max=1024)},)
            program = torch.onnx.export(module, (x,), dynamic_shapes=shapes, **names)
            assert program is not None
            return program.model_proto
        buffer = io.BytesIO()
        axes = {} if network.batch else {INPUT: {0: "n"}, OUTPUT: {0: "n"}}
        torch.onnx.export(
            module,
            (x,),
            buffer,
            dynamo=False,
            opset_version=network.opset,
            dynamic_axes=axes,
            do_constant_folding=False,
            **names,
        )
    return onnx.load_from_string(buffer.getvalue())


def _triggered(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, :, :2, :2] = 1
    return x


def _trained(module: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    poisoned = np.random.default_rng(1).random(len(y)) < 0.1
    x, y = x.copy(), y.copy()
    x[poisoned], y[poisoned] = _triggered(x[poisoned]), TARGET
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3, weight_decay=1e-4)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(y)), 50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return module.eval()
