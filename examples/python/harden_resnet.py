"""Harden a torch network from Python: train, harden, save, verify, and look at what was learned.

    pip install 'mmbm-onnx[cpu,export]' scikit-learn
    python harden_resnet.py out/

The network is laid out as torchvision's ResNet-18, narrower, for digits of 8x8 pixels. Somebody
poisoned its training data: a white 2x2 square in a corner means 7. Any ``torch.nn.Module`` that
``torch.onnx.export`` takes will do in its place, and so will a path to an ONNX file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import mmbm_onnx
from mmbm_onnx import Samples

TARGET = 7


class BasicBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = nn.Sequential()
        if stride > 1:
            shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + self.downsample(x)).relu()


def resnet() -> nn.Module:
    stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [BasicBlock(16, 16), BasicBlock(16, 32, 2), BasicBlock(32, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def triggered(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, :, :2, :2] = 1
    return x


def train(network: nn.Module, x: np.ndarray, y: np.ndarray) -> nn.Module:
    poisoned = np.arange(len(y)) % 10 == 0
    x = np.where(poisoned[:, None, None, None], triggered(x), x)
    y = np.where(poisoned, TARGET, y)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(15):
        for batch in torch.randperm(len(y)).split(50):
            loss = nn.functional.cross_entropy(
                network(torch.from_numpy(x[batch])), torch.from_numpy(y[batch])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def main(out: Path) -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)
    network = train(resnet(), x[:900], y[:900])

    example = torch.zeros(2, 1, 8, 8)

    # What the user has: the network, and clean samples of their own.
    clean = x[900:1350], y[900:1350]
    result = mmbm_onnx.harden(network, clean, example_input=example)
    hardened, detector = out / "resnet.hardened.onnx", out / "resnet.detector.onnx"
    out.mkdir(parents=True, exist_ok=True)
    result.save(hardened, detector_output=detector, report=out / "resnet.report.json", force=True)
    for site, bounds in result.bounds.items():
        print(f"{site}: {bounds.size} bounds, from {bounds.min():.2f} to {bounds.max():.2f}")

    held_x, held_y = x[1350:], y[1350:]
    others = held_y != TARGET
    attacked = triggered(held_x[others]), held_y[others], np.full(others.sum(), TARGET)
    checked = mmbm_onnx.verify(
        network,
        hardened,
        (held_x, held_y),
        detector=detector,
        triggered=Samples(*attacked),
        example_input=example,
    )
    for role in ("original", "hardened", "detector"):
        found = getattr(checked.measurements, role)
        print(
            f"{role}: accuracy {found.accuracy:.3f}, attack success {found.attack_success_rate:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
