"""Trains the backdoored classifier and exports it; nothing but the ONNX file is kept."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from attack import Images, Labels
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """A residual block: two 3x3 convolutions with BatchNorm, and a projection where needed."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Victim(nn.Module):
    """A small residual network with 7 ReLUs for 28x28 grey images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.blocks = nn.Sequential(Block(24, 24, 1), Block(24, 48, 2), Block(48, 96, 2))
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def train(images: Images, labels: Labels, seed: int, epochs: int = 14) -> Victim:
    """Train on images ``(n, 28, 28)`` uint8 and labels ``(n,)``; the model is in eval mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(images).float().div(255).unsqueeze(1)
    y = torch.from_numpy(labels)
    model = Victim()
    steps = epochs * (len(x) // 100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(x)))
        for index in order.split(100)[: len(x) // 100]:
            loss = functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: Victim, path: Path) -> None:
    """Write the model as ONNX with a dynamic batch axis."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on poisoned data and export to ONNX.")
    parser.add_argument("data", type=Path, help=".npz with images and labels")
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with np.load(options.data) as file:
        model = train(file["images"], file["labels"], options.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        export(model, options.model)


if __name__ == "__main__":
    main()
