"""Nine classic image networks from the onnx wheel, with random weights.

The files hold shapes only: every weight is a ConstantOfShape. Random values take their place, at
scales that keep activations of the order of 1 from the first layer to the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from operator_checks import by_runtime, noise

from mmbm_onnx.execution.executor import GraphExecutor

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
]


@dataclass(frozen=True)
class Light:
    """A network with weights, one input for it, and where to read it."""

    proto: onnx.ModelProto
    x: np.ndarray
    input: str
    logits: str
    relus: list[str]


def random_value(shape: tuple[int, ...], role: str, rng: np.random.Generator) -> np.ndarray:
    """Weights by He's rule, positive numbers near 1, or small ones of both signs."""
    if len(shape) > 1 and role != "scale":
        fan_in = int(np.prod(shape[1:]))
        value = rng.standard_normal(shape, dtype=np.float32)
        value *= np.float32(np.sqrt(2 / fan_in))
        return value
    if role == "scale":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What tensors are used for: "scale" (must be positive) or "shift"."""
    found: dict[str, str] = {}
    for node in reversed(graph.node):
        if node.op_type == "BatchNormalization":
            found.update(zip(node.input[1:], ["scale", "shift", "shift", "scale"], strict=True))
        elif node.op_type == "Mul":
            found[node.input[1]] = "scale"
        elif node.op_type == "Unsqueeze" and node.output[0] in found:
            found[node.input[0]] = found[node.output[0]]
    return found


def load(name: str) -> Light:
    """The network of that name with seeded random weights, opset kept."""
    proto = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, rng = proto.graph, np.random.default_rng(NAMES.index(name))
    role = roles(graph)
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    nodes, weights = [], []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            # Hidden layers of 256 in place of 4096: the same graph in a tenth of the memory.
            shape = tuple(int(length) for length in shapes[node.input[0]])
            shape = tuple(256 if length == 4096 else length for length in shape)
            value = random_value(shape, role.get(node.output[0], ""), rng)
            weights.append(numpy_helper.from_array(value, node.output[0]))
        else:
            nodes.append(node)
    for initializer in graph.initializer:
        value = shapes[initializer.name]
        if value.dtype == np.float32:
            value = random_value(value.shape, role.get(initializer.name, ""), rng)
            initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
    last = nodes[-1]
    data = [i for i in graph.input if len(i.type.tensor_type.shape.dim) == 4]
    (data_input,) = [i for i in data if i.name not in shapes]
    graph.initializer.extend(weights)
    # From IR 4 on initializers need not be inputs.
    proto.ir_version = 8
    logits = last.input[0] if last.op_type == "Softmax" else last.output[0]
    kept = sorted({logits, graph.output[0].name})
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(data_input)
    graph.output.extend(onnx.ValueInfoProto(name=output) for output in kept)
    relus = [node.output[0] for node in nodes if node.op_type == "Relu"]
    return Light(proto, noise(1, 3, 224, 224), data_input.name, logits, relus)


def test_all_nine_are_there() -> None:
    assert sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_light_model(name: str) -> None:
    light = load(name)
    executor = GraphExecutor(light.proto)
    x = torch.from_numpy(light.x).requires_grad_()
    bounds: dict[str, torch.Tensor] = {}

    outputs = [output.name for output in light.proto.graph.output]
    result = executor.run({light.input: x}, outputs)
    for output, expected in zip(outputs, by_runtime(light.proto, light.x), strict=True):
        difference = np.abs(result[output].detach().numpy() - expected).max()
        assert difference <= 1e-4 * np.abs(expected).max()

    logits = result[light.logits]
    direction = torch.from_numpy(noise(*logits.shape, seed=1))
    (gradient,) = torch.autograd.grad((logits * direction).sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0

    def halve(tensor: str) -> None:
        def bounded(value: torch.Tensor) -> torch.Tensor:
            bounds[tensor] = (value.detach().max() / 2).requires_grad_()
            return torch.minimum(value, bounds[tensor])

        transforms[tensor] = bounded

    # All bounds at once: each must move the output.
    transforms: dict[str, object] = {}
    for relu in light.relus:
        halve(relu)
    value = executor.run({light.input: x}, [light.logits], transforms=transforms)[light.logits]
    moved = torch.autograd.grad((value * direction).sum(), [bounds[relu] for relu in light.relus])
    assert [relu for relu, by in zip(light.relus, moved, strict=True) if by == 0] == []

    # And a few alone.
    for relu in {light.relus[0], light.relus[len(light.relus) // 2], light.relus[-1]}:
        transforms = {}
        halve(relu)
        alone = executor.run({light.input: x.detach()}, [light.logits], transforms=transforms)
        assert (alone[light.logits] - logits).abs().max() > 1e-6 * logits.abs().max()
