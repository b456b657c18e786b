from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from rewriting_helpers import parse, unchanged

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.checks import check_signature, check_written


def model():
    return parse(
        "g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { y = Mul(x, w) z = Neg(y) }",
        w=np.ones(2, np.float32),
    )


def test_a_valid_model_passes():
    check_written(model())
    check_signature(model(), model())


def test_an_invalid_model_is_refused_in_one_line():
    broken = model()
    broken.graph.node[1].input[0] = "nothing"
    with pytest.raises(
        RewriteError, match=r"^the rewritten graph is not valid ONNX: .*nothing"
    ) as e:
        check_written(broken)
    assert "\n" not in str(e.value)


def test_a_wrong_type_is_refused():
    broken = model()
    broken.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(RewriteError, match="not valid ONNX"):
        check_written(broken)


def reorder(changed):
    first, second = (unchanged(info) for info in changed.graph.output)
    del changed.graph.output[:]
    changed.graph.output.extend([second, first])


def rename(changed):
    changed.graph.output[0].name = "other"


def retype(changed):
    changed.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 3


def other_input(changed):
    changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_opset(changed):
    changed.opset_import[0].version = 18


def other_ir(changed):
    changed.ir_version = 9


def other_weight(changed):
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(2, np.float32), "w"))


def no_weight(changed):
    del changed.graph.initializer[:]


def extra(changed):
    changed.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))


def fewer(changed):
    del changed.graph.output[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reorder, "outputs were changed"),
        (rename, "outputs were changed"),
        (retype, "outputs were changed"),
        (fewer, "outputs were changed"),
        (other_input, "inputs were changed"),
        (other_opset, "opset"),
        (other_ir, "IR version became 9"),
        (other_weight, "'w' was changed"),
        (no_weight, "'w' is gone"),
        (extra, r"extra outputs \['w'\], expected \[\]"),
    ],
)
def test_a_changed_signature_is_refused(change, message):
    changed = model()
    change(changed)
    with pytest.raises(RewriteError, match=message):
        check_signature(model(), changed)


def test_announced_outputs_are_taken_and_missing_ones_refused():
    changed = model()
    extra(changed)
    check_signature(model(), changed, ["w"])
    with pytest.raises(RewriteError, match="expected"):
        check_signature(model(), model(), ["w"])


def test_more_initializers_are_taken():
    changed = model()
    changed.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "new"))
    check_signature(model(), changed)
