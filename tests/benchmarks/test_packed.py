"""Graphs without their weights, timed elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.latency.networks import Network
from benchmarks.latency.packed import odd, pack, unpack


def model(*, detector: bool) -> onnx.ModelProto:
    """64 values times weights; a detector tells what goes on by a score of its own."""
    tail = "mmbm_decision/is_odd"
    outputs = f"float[N, 64] y, bool[N] {tail}" if detector else "float[N, 64] y"
    body = "y = MatMul (flat, weight)"
    if detector:
        body += "\nscore = ReduceMax <axes = [1], keepdims = 0> (y)"
        body += "\nmmbm_decision_usual = Less (score, far)"
    text = f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, 1, 8, 8] x) => ({outputs.replace("/", "_")}) <float far = {{1e9}}>
        {{ flat = Flatten <axis = 1> (x)
           {body} {"mmbm_decision_is_odd = Not (mmbm_decision_usual)" if detector else ""} }}
    """
    proto = onnx.parser.parse_model(text)
    if detector:
        proto.graph.output[1].name = tail
        proto.graph.node[-1].output[0] = tail
    weight = np.random.default_rng(1).normal(0.5, 2, (64, 64)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return proto


def test_weights_are_left_out_and_noise_of_their_spread_comes_back(tmp_path: Path) -> None:
    original = model(detector=False)
    pack(Network(original, (1, 8, 8)), {"original": original}, tmp_path)
    assert (tmp_path / "original.onnx").stat().st_size < 1000
    network, made = unpack(tmp_path)
    assert network.shape == (1, 8, 8) and list(made) == ["original"]
    (weight,) = (t for t in made["original"].graph.initializer if t.name == "weight")
    values = onnx.numpy_helper.to_array(weight)
    assert values.shape == (64, 64)
    assert abs(values.mean() - 0.5) < 0.2 and abs(values.std() - 2) < 0.2
    onnx.checker.check_model(made["original"])


def test_the_first_value_decides_which_samples_go_on(tmp_path: Path) -> None:
    detector = model(detector=True)
    pack(
        Network(model(detector=False), (1, 8, 8)),
        {"original": model(detector=False), "detector": detector},
        tmp_path,
    )
    x = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    x[:2] = odd(x[:2])
    session = onnxruntime.InferenceSession(
        unpack(tmp_path)[1]["detector"].SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(["mmbm_decision/is_odd"], {"x": x})[0]
    assert found.ravel().tolist() == [True] * 2 + [False] * 4
