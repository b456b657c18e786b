"""A small residual network with bounds, and its shadow branch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.pipeline.shadowing import Shadowed, Shadowing
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Bounds, Interface, Samples, Site

CLASSES = 4
HEADS = {
    "logits": ("logits", "float[{n}, 4]", ""),
    "softmax": ("y", "float[{n}, 4]", "y = Softmax(logits)"),
}


def network(
    head: str = "logits", opset: int = 17, batch: str = "N", ir: int = 8
) -> onnx.ModelProto:
    """Two convolutions with a sum, pooled, and two layers behind; input ``x``."""
    return network_of(_weights(), head, opset, batch, ir)


def network_of(
    weights: dict[str, np.ndarray], head: str, opset: int, batch: str, ir: int
) -> onnx.ModelProto:
    """The network with these weights."""
    output, kind, tail = HEADS[head]
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: {ir}, opset_import: ["" : {opset}]>
        net (float[{batch}, 3, 8, 8] x) => ({kind.format(n=batch)} {output}) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            first = Relu(a)
            b = Conv <pads = [1, 1, 1, 1]> (first, w2, b2)
            sum = Add(b, first)
            second = Relu(sum)
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (second)
            c = GlobalAveragePool(pooled)
            flat = Flatten(c)
            d = Gemm(flat, w3, b3)
            third = Relu(d)
            logits = Gemm(third, w4, b4)
            {tail}
        }}
        """
    )
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    return proto


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Random ones, but for the last layer: it tells the kinds of samples well apart."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 12), "w4": (12, CLASSES)}
    sizes = {"b1": 8, "b2": 8, "b3": 12, "b4": CLASSES}
    weights = {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}
    weights |= {name: rng.normal(0, 0.2, size) for name, size in sizes.items()}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    proto = network_of(weights, "logits", 17, "N", 8)
    seen = samples(400, 9)
    sites, bounds = sites_and_bounds(proto)
    bounded = insert_bounds(proto, sites, bounds)
    (features,) = Session(with_outputs(bounded, ["third"])).run(["third"], {"x": seen.x})
    wanted = 8 * np.eye(CLASSES)[seen.y]
    both = np.concatenate([features, np.ones((len(features), 1))], 1)
    found = np.linalg.solve(both.T @ both + np.eye(13), both.T @ wanted).astype(np.float32)
    return {**weights, "w4": found[:-1], "b4": found[-1]}


def samples(count: int, seed: int = 0) -> Samples:
    """Noise of four kinds, labelled by kind."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % CLASSES
    x = rng.normal(0, 0.3, (count, 3, 8, 8))
    x[:, 0] += y[:, None, None] - 1.5
    x[:, 1] += (y[:, None, None] % 2) - 0.5
    return Samples(x.astype(np.float32), y)


def sites_and_bounds(proto: onnx.ModelProto) -> tuple[list[Site], Bounds]:
    """Its activations, and bounds per channel that many samples reach."""
    sites = list(find_sites(proto).sites)
    rng = np.random.default_rng(1)
    return sites, Bounds(
        {s.tensor: rng.uniform(0.4, 1.2, s.channels).astype(np.float32) for s in sites}
    )


def runner(face: Interface) -> Runner:
    return Runner(face, None, 1, 16)


def shadowing(proto: onnx.ModelProto, choice: Any, provider: str | None = None) -> Shadowing:
    """What makes a shadow of the network."""
    sites, _ = sites_and_bounds(proto)
    return Shadowing(choice, proto, find_interface(proto), sites, provider)


def hardened_answers(proto: onnx.ModelProto, x: np.ndarray) -> Predictions:
    """What the folded graph answers."""
    face = find_interface(proto)
    sites, bounds = sites_and_bounds(proto)
    return runner(face).answers(fold_bounds(proto, sites, bounds).proto, x)


def shadowed(proto: onnx.ModelProto, choice: Any, **changes: Any) -> Shadowed:
    """The shadow of the network with its bounds."""
    _, bounds = sites_and_bounds(proto)
    clean = samples(60, 2)
    return shadowing(proto, choice, **changes).make(
        bounds,
        runner(find_interface(proto)),
        samples(120, 1),
        clean,
        hardened_answers(proto, clean.x),
        0,
    )
