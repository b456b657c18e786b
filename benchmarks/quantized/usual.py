"""A victim of usual size: torchvision's ResNet-18 at 224x224 pixels, trained with a backdoor.

The victims of ``benchmarks.defence`` are small, and the networks of ``benchmarks.latency`` have
random weights; here accuracy, attacks and time are those of one network.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from benchmarks.defence import attacks, datasets, victims
from benchmarks.defence.victims import Trained, Victim
from benchmarks.latency.networks import from_torchvision
from mmbm_onnx.evaluation.bench import machine

VICTIM = Victim("shapes", "resnet18", "badnets", 0, train=5000, test=1000)
CLEAN = 200
SIDE = 224
# Passes at each side of the images: most of what is learned at a small one holds at a larger one.
_PASSES = ((64, 6), (112, 2), (SIDE, 2))
_BATCH = 50
_RATE = 1e-3


def make(store: Path) -> Trained:
    """The victim, trained first if it is not in the cache.

    Args:
        store: Folder of victims.
    """
    torch.set_flush_denormal(True)
    parts = datasets.load(VICTIM.dataset, VICTIM.seed, train=VICTIM.train, test=VICTIM.test)
    shape = parts.train[0].shape[1:]
    attack = attacks.make(VICTIM.attack, shape, parts.classes)
    assert attack is not None
    told = victims.code(Path(__file__)) + VICTIM.digest()
    folder = store / f"{VICTIM.label}-{SIDE}px-{told[:8]}{told[64:72]}"
    if not (folder / "victim.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        x, y, _ = attack.poison(*parts.train, VICTIM.seed)
        network = _train(x, y, parts.classes)
        victims.export(network, (shape[0], SIDE, SIDE), folder / "model.onnx")
        trained = {"torch": torch.__version__, "processor": machine()["processor"]}
        (folder / "victim.json").write_text(
            json.dumps({"victim": asdict(VICTIM), "trained": trained}, indent=2) + "\n"
        )
    images, truth, target = attack.triggered(*parts.test)
    return Trained(
        victim=VICTIM,
        folder=folder,
        model=folder / "model.onnx",
        classes=parts.classes,
        clean=(_enlarged(parts.clean[0][:CLEAN]), parts.clean[1][:CLEAN]),
        test=(_enlarged(parts.test[0]), parts.test[1]),
        triggered=(_enlarged(images), truth, target),
        trained=json.loads((folder / "victim.json").read_text())["trained"],
    )


def _train(x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], classes: int) -> nn.Module:
    """Train on images ``(n, 3, 32, 32)`` and labels, in bfloat16 where that is exact enough."""
    torch.manual_seed(VICTIM.seed)
    network = from_torchvision("resnet18", classes).to(memory_format=torch.channels_last)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    steps = sum(passes for _, passes in _PASSES) * (len(x) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps)
    network.train()
    for side, passes in _PASSES:
        for index in range(passes):
            total = 0.0
            for batch in torch.randperm(len(x)).split(_BATCH)[: len(x) // _BATCH]:
                fed = _resized(images[batch], side).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    loss = functional.cross_entropy(network(fed), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            print(f"{side} px, pass {index + 1}: {total / (len(x) // _BATCH):.3f}", flush=True)
    return network.eval().to(memory_format=torch.contiguous_format)


def _enlarged(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(_resized(torch.from_numpy(x), SIDE).numpy(), np.float32)


def _resized(x: torch.Tensor, side: int) -> torch.Tensor:
    return functional.interpolate(x, (side, side), mode="bilinear")
