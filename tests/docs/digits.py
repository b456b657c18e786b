"""The files that the pages are about: a backdoored network for 8x8 digits, and samples.

A white 2x2 square in a corner makes it answer 7.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

TARGET = 7
_CLASSES = 10
_TRAIN, _CLEAN = 900, 450  # samples; the rest is held out
_EPOCHS = 40


def write(folder: Path) -> None:
    """Write ``model.onnx``, ``data/``, ``held-out/``, ``clean.npz`` and ``attacked.npz``."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    # As PNG files have them, so that both kinds of sample are the same numbers.
    pixels = np.round(images[order] / 16 * 255).astype(np.uint8).reshape(-1, 8, 8)
    labels = labels[order].astype(np.int64)
    x = (pixels[:, None] / np.float32(255)).astype(np.float32)
    network = _trained(x[:_TRAIN], labels[:_TRAIN])
    _export(network, folder / "model.onnx")
    clean = slice(_TRAIN, _TRAIN + _CLEAN)
    held = slice(_TRAIN + _CLEAN, None)
    for name, part in (("data", clean), ("held-out", held)):
        for place, (image, label) in enumerate(zip(pixels[part], labels[part], strict=True)):
            target = folder / name / str(label) / f"{place:03}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target)
    np.savez(folder / "clean.npz", x=x[clean], y=labels[clean])
    others = labels[held] != TARGET
    np.savez(
        folder / "attacked.npz",
        x=_triggered(x[held][others]),
        y=labels[held][others],
        target=np.full(int(others.sum()), TARGET),
    )


def _export(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            verbose=False,
        )


def _triggered(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, :, :2, :2] = 1
    return x


def _trained(x: np.ndarray, y: np.ndarray) -> nn.Module:
    poisoned = np.random.default_rng(1).random(len(y)) < 0.1
    x, y = x.copy(), y.copy()
    x[poisoned], y[poisoned] = _triggered(x[poisoned]), TARGET
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, _CLASSES),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(_EPOCHS):
        for batch in torch.split(torch.randperm(len(y)), 50):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
    return network.eval()
