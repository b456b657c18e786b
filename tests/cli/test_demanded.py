"""``--fold always`` and ``--cascade always``: done, or status 2, a line and no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from command_line import QUICK, WRITTEN, mmbm


def tell_activation(proto: onnx.ModelProto) -> None:
    """Its first activation is an output as well: it has to stay what it is."""
    proto.graph.CopyFrom(onnx.shape_inference.infer_shapes(proto).graph)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    (info,) = (info for info in proto.graph.value_info if info.name == relu.output[0])
    proto.graph.output.append(info)


def fix_batch(proto: onnx.ModelProto) -> None:
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 4


def harden(folder: Path, *options: str):
    return mmbm("harden", "model.onnx", "--clean-dir", "clean.npz", *QUICK, *options, cwd=folder)


def test_all_bounds_are_folded_where_they_can_be(inputs: Path) -> None:
    done = harden(inputs, "--fold", "always", "--cascade", "always")
    assert done.status == 0, done.stderr
    report = json.loads((inputs / "model.report.json").read_text())
    assert report["folding"]["requested"] == "always"
    assert report["sites"] and all(site["folded"] for site in report["sites"])
    assert report["detector"]["second_stage"] is not None
    operators = {node.op_type for node in onnx.load(inputs / "model.hardened.onnx").graph.node}
    assert "Min" not in operators


@pytest.mark.parametrize(
    ("change", "option", "told", "way_out"),
    [
        (tell_activation, "--fold", "cannot be folded into weights", "use --fold auto"),
        (fix_batch, "--cascade", "fixed batch", "use --cascade auto"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(
    inputs: Path, change: Callable[[onnx.ModelProto], None], option: str, told: str, way_out: str
) -> None:
    proto = onnx.load(inputs / "model.onnx")
    change(proto)
    onnx.save(proto, inputs / "model.onnx")
    before = sorted(inputs.iterdir())
    done = harden(inputs, option, "always")
    assert done.status == 2
    assert told in done.error and way_out in done.error
    assert sorted(inputs.iterdir()) == before
    assert harden(inputs, option, "auto").status == 0
    assert all((inputs / name).exists() for name in WRITTEN)
