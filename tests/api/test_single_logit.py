"""A model of two classes with one logit, from file to verified graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from defended import assert_defended
from onnx import numpy_helper
from quadrants import draw, planted_images, with_trigger

from mmbm_onnx import Samples, harden, inspect, verify


def planted(sigmoid: bool) -> onnx.ModelProto:
    """Whether the bright quadrant is on the right; the trigger shouts for yes."""
    proto = planted_images("Softmax" if sigmoid else "")
    head = np.full((2, 2, 2, 1), 8, np.float32)
    head[0, :, 0] = -8
    for item in proto.graph.initializer:
        if item.name == "head":
            item.CopyFrom(numpy_helper.from_array(head.reshape(8, 1), "head"))
    del proto.graph.value_info[:]
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    if sigmoid:
        last = proto.graph.node[-1]
        last.op_type = "Sigmoid"
        del last.attribute[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("sigmoid", [True, False])
def test_it_is_hardened_and_verified(sigmoid: bool) -> None:
    model = planted(sigmoid)
    name = None if sigmoid else "logits"
    found = inspect(model, logits_name=name).interface
    assert found is not None
    assert (found.classes, found.head) == (2, "sigmoid" if sigmoid else "logit")
    x, quadrant = draw(240, seed=1)
    clean = (x[:, None].astype(np.float32) / 255, quadrant % 2)
    result = harden(model, clean, epochs=25, batch_size=60, threads=1, logits_name=name)
    assert result.passed, result.gates
    x, quadrant = draw(400, seed=2)
    left = quadrant % 2 == 0
    attacked = Samples(
        with_trigger(x[left])[:, None].astype(np.float32) / 255,
        quadrant[left] % 2,
        np.ones(int(left.sum()), np.int64),
    )
    checked = verify(
        model,
        result.hardened,
        clean,
        detector=result.detector,
        triggered=attacked,
        logits_name=name,
        threads=1,
    )
    assert_defended(checked)
