"""Networks to time, with random weights: speed does not depend on what they are."""

from __future__ import annotations

import io
from dataclasses import dataclass

import onnx
import torch
from torch import nn
from torch.nn import functional

from benchmarks.defence import networks as victims

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
_BATCHES = 4  # that BatchNorm's statistics are of


@dataclass(frozen=True)
class Network:
    """A model and the shape of one of its inputs."""

    proto: onnx.ModelProto
    shape: tuple[int, ...]


def build(name: str) -> Network:
    """Build and export a network; its batch axis is open."""
    torch.manual_seed(0)
    if name in VICTIMS:
        module = victims.build(name.removeprefix("victim-"), 3, CLASSES, 0)
        shape = (3, 32, 32)
    else:
        module = _from_torchvision(name)
        shape = (3, 224, 224)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # as if trained: something to fold
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            part.momentum = None  # the mean over all batches
    with torch.no_grad():  # so that answers differ from input to input
        for _ in range(_BATCHES):
            coarse = torch.rand(8, shape[0], 8, 8)
            module.train()(functional.interpolate(coarse, shape[1:], mode="bilinear"))
    buffer = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.randn(2, *shape),),
        buffer,
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    return Network(onnx.load_from_string(buffer.getvalue()), shape)


def _from_torchvision(name: str) -> nn.Module:
    for missing in ("nms", "qnms"):
        # torchvision's own library of operators fits one build of torch only. None of these
        # networks needs it, but importing torchvision does.
        if not hasattr(torch.ops.torchvision, missing):
            torch.library.define(
                f"torchvision::{missing}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
    import torchvision

    further = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    made = getattr(torchvision.models, name)(weights=None, **further)
    assert isinstance(made, nn.Module)
    return made
