"""Networks to time, with random weights: speed does not depend on what they are."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

from benchmarks.defence import networks as victims
from mmbm_onnx.api.sources import export_module

TORCHVISION = (
    "resnet18",
    "resnet50",
    "googlenet",
    "densenet121",
    "shufflenet_v2_x1_0",
    "vgg16",
    "mobilenet_v2",
    "regnet_y_400mf",
)
VICTIMS = tuple(f"victim-{name}" for name in victims.NAMES)
NAMES = (*TORCHVISION, *VICTIMS)
CLASSES = 10
_NO_TORCHVISION = "the networks are torchvision's: pip install --no-deps torchvision==0.28.0"
_BATCHES = 4  # that BatchNorm's statistics are of


@dataclass(frozen=True)
class Network:
    """A model and the shape of one of its inputs."""

    proto: onnx.ModelProto
    shape: tuple[int, ...]


def blots(count: int, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """Pictures of large blurred blots, each of its own, in the unit interval.

    Args:
        count: How many.
        shape: Of one, ``(channels, height, width)``.
        seed: Of their colours.
    """
    coarse = np.random.default_rng(seed).random((count, shape[0], 8, 8), np.float32)
    fine = functional.interpolate(torch.from_numpy(coarse), shape[1:], mode="bilinear")
    return np.asarray(fine.numpy(), np.float32)


def build(name: str) -> Network:
    """Build and export a network; its batch axis is open."""
    torch.manual_seed(0)
    if name in VICTIMS:
        module = victims.build(name.removeprefix("victim-"), 3, CLASSES, 0)
        shape = (3, 32, 32)
    else:
        module = from_torchvision(name)
        shape = (3, 224, 224)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # as if trained: something to fold
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            part.momentum = None  # the mean over all batches
    with torch.no_grad():  # so that answers differ from input to input
        for seed in range(_BATCHES):
            module.train()(torch.from_numpy(blots(8, shape, seed)))
    return Network(export_module(module, torch.randn(2, *shape)).proto, shape)


def from_torchvision(name: str, classes: int = 1000) -> nn.Module:
    """One of torchvision's networks, with random weights.

    Raises:
        SystemExit: torchvision is not there; says how to get it.
    """
    _stand_in()
    try:
        import torchvision
    except ModuleNotFoundError:
        raise SystemExit(_NO_TORCHVISION) from None

    further = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    made = getattr(torchvision.models, name)(weights=None, num_classes=classes, **further)
    assert isinstance(made, nn.Module)
    return made


def _stand_in() -> None:
    """Define what importing torchvision looks for, where its own library of operators, which fits
    one build of torch only, cannot be loaded. None of these networks needs it."""
    spec = importlib.util.find_spec("torchvision")
    folders = None if spec is None else spec.submodule_search_locations
    for folder in folders or ():
        for library in Path(folder).glob("_C*.so"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(library)
    for missing in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, missing):
            torch.library.define(
                f"torchvision::{missing}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
