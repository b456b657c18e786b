"""docs/quantizing.md: its code, run as it stands on a hardened graph, does what the page says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmbm_onnx.evaluation.compare import worst_difference
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Bounds

PAGE = Path(__file__).parents[1] / "docs" / "quantizing.md"
CHANNELS = 16


def network() -> onnx.ModelProto:
    """A residual block; input ``image``."""
    rng = np.random.default_rng(0)

    def conv(source: str, weight: str, name: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, weight], [name], pads=[1] * 4)

    nodes = [
        conv("image", "w1", "a"),
        helper.make_node("Relu", ["a"], ["first"]),
        conv("first", "w2", "b"),
        helper.make_node("Add", ["b", "first"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["second"]),
        helper.make_node("GlobalAveragePool", ["second"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"]),
    ]
    shapes = {"w1": (CHANNELS, 3, 3, 3), "w2": (CHANNELS, CHANNELS, 3, 3), "w3": (CHANNELS, 4)}
    weights = [
        numpy_helper.from_array(
            (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("folded", [True, False])
def test_the_code_of_the_page_quantizes_a_hardened_graph(
    folded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = network()
    sites = find_sites(proto).sites
    rng = np.random.default_rng(1)
    bounds = Bounds({s.tensor: rng.uniform(0.3, 1, CHANNELS).astype(np.float32) for s in sites})
    plain = insert_bounds(proto, sites, bounds)
    hardened = fold_bounds(proto, sites, bounds).proto if folded else plain
    x = rng.normal(size=(100, 3, 8, 8)).astype(np.float32)
    monkeypatch.chdir(tmp_path)
    onnx.save(hardened, "model.hardened.onnx")
    np.savez("clean.npz", x=x)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})

    quantized = onnx.load("model.hardened.int8.onnx")
    count = Counter(node.op_type for node in quantized.graph.node)
    assert (count["Min"], count["Clip"]) == ((0, 0) if folded else (2, 0))
    answers = [
        Session(each, threads=1).run(["logits"], {"image": x})[0]
        for each in (plain, quantized, proto)
    ]
    assert worst_difference(answers[0], answers[1]).relative < 0.1
    assert worst_difference(answers[0], answers[2]).relative > 0.3  # what bounds change
