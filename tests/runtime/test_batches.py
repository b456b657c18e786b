from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from mmbm_onnx.errors import DataError, ModelError, OptionError
from mmbm_onnx.runtime import Session, run_batches
from mmbm_onnx.types import Interface

F32 = np.dtype(np.float32)


def model(batch: str) -> Session:
    return Session(
        parser.parse_model(
            f"""<ir_version: 9, opset_import: ["": 17]>
            g (float[{batch}, 2] x) => (float[{batch}, 2] y, float[{batch}] s, float[1, 2] total)
            <int64[1] last = {{1}}, int64[1] first = {{0}}> {{
                y = Neg(x)
                s = ReduceSum<keepdims = 0>(x, last)
                total = ReduceSum(x, first)
            }}"""
        )
    )


def interface(batch: int | None) -> Interface:
    return Interface("x", F32, (batch, 2), batch, "y", "y", 2)


X = np.arange(14, dtype=np.float32).reshape(7, 2)


@pytest.mark.parametrize("batch", [None, 1, 3, 7, 16])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_any_number_of_samples(batch, size):
    session = model("N" if batch is None else str(batch))
    result = run_batches(session, interface(batch), X, ["s", "y"], batch_size=size)
    assert list(result) == ["s", "y"]
    np.testing.assert_array_equal(result["y"], -X)
    np.testing.assert_array_equal(result["s"], X.sum(1))


def test_samples_need_not_be_contiguous():
    x = np.asfortranarray(X)
    np.testing.assert_array_equal(run_batches(model("N"), interface(None), x, ["y"])["y"], -X)


def test_output_without_batch_axis_is_refused():
    with pytest.raises(ModelError, match=r"'total' has shape \(1, 2\) for a batch of 7"):
        run_batches(model("N"), interface(None), X, ["total"])


def test_output_that_changes_shape_between_batches_is_refused():
    class Growing:
        calls = 0

        def run(self, outputs, feeds):
            self.calls += 1
            return [np.zeros((len(feeds["x"]), self.calls), np.float32)]

    with pytest.raises(ModelError, match=r"'y' has shape \(2,\) per sample in one batch"):
        run_batches(Growing(), interface(None), X, ["y"], batch_size=4)


def test_wrong_dtype_is_refused_rather_than_cast():
    with pytest.raises(DataError, match="samples are uint8, input 'x' of the model takes float32"):
        run_batches(model("N"), interface(None), X.astype(np.uint8), ["y"])


def test_nothing_to_run_is_refused():
    with pytest.raises(DataError, match="no samples"):
        run_batches(model("N"), interface(None), X[:0], ["y"])
    with pytest.raises(OptionError, match="batch size is 0"):
        run_batches(model("N"), interface(None), X, ["y"], batch_size=0)
