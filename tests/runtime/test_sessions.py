from __future__ import annotations

import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from mmbm_onnx.errors import ModelError, OptionError, RuntimeMissingError
from mmbm_onnx.runtime import Session, sessions

MODEL = parser.parse_model(
    """<ir_version: 9, opset_import: ["": 17]>
    g (float[N, 3] x) => (float[N, 3] y, float[N, 3] z)
    <float[3] w = {10, 20, 30}> { y = Relu(x)  z = Add(y, w) }"""
)
X = np.array([[-1, 0, 2], [3, -4, 5]], np.float32)


@pytest.fixture(params=["proto", "bytes", "path"])
def model(request, tmp_path):
    if request.param == "proto":
        return MODEL
    if request.param == "bytes":
        return MODEL.SerializeToString()
    path = tmp_path / "model.onnx"
    onnx.save(MODEL, path)
    return path


def test_runs_models_in_memory_and_from_files(model):
    session = Session(model)
    assert session.providers == ("CPUExecutionProvider",)
    assert session.input_names == ("x",)
    assert session.output_names == ("y", "z")
    y, z = session.run(None, {"x": X})
    np.testing.assert_array_equal(y, np.maximum(X, 0))
    np.testing.assert_array_equal(z, y + np.float32([10, 20, 30]))


def test_outputs_come_in_the_order_asked_for():
    session = Session(MODEL)
    z, y = session.run(["z", "y"], {"x": X})
    assert z[0, 0] == 10
    assert y[0, 0] == 0
    assert session.run([], {"x": X}) == []


def test_file_with_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    proto = onnx.ModelProto()
    proto.CopyFrom(MODEL)
    weight = onnx.numpy_helper.from_array(np.float32([10, 20, 30]), "w")
    proto.graph.initializer[0].CopyFrom(weight)  # only raw data can go to a file of its own
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="model.data")
    assert (tmp_path / "model.data").stat().st_size >= 12
    assert Session(path).run(["z"], {"x": X})[0][0, 2] == 32


@pytest.mark.parametrize("broken", [b"", b"not a model" * 9])
def test_broken_model_is_one_line(broken):
    with pytest.raises(ModelError, match="cannot load the model") as caught:
        Session(broken)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        Session(tmp_path / "absent.onnx")


def test_run_errors_are_one_line_and_silent(capfd):
    session = Session(MODEL)
    with pytest.raises(ModelError, match="Got: 4 Expected: 3") as caught:
        session.run(None, {"x": np.zeros((2, 4), np.float32)})
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="missing from input feed"):
        session.run(None, {})
    with pytest.raises(ModelError, match="no output 'logits'; it has y, z"):
        session.run(["logits"], {"x": X})
    assert capfd.readouterr().err == ""


def test_running_out_of_memory_advises_a_smaller_batch():
    session = Session(MODEL)

    class Exhausted:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer")

    session._session = Exhausted()
    with pytest.raises(ModelError, match="smaller batch"):
        session.run(None, {"x": X})


def test_threads_and_optimisation_reach_onnx_runtime():
    options = Session(MODEL, threads=1, optimize=False)._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.use_deterministic_compute
    with pytest.raises(OptionError, match="threads is 0"):
        Session(MODEL, threads=0)


def test_provider_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeMissingError, match="CUDAExecutionProvider is not in this"):
        Session(MODEL, provider="cuda")


def test_silent_fallback_to_the_cpu_is_refused(monkeypatch):
    class FallenBack:
        def __init__(self, source, options, providers, disabled_optimizers, enable_fallback):
            assert providers == [
                (
                    "CUDAExecutionProvider",
                    {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
                ),
                "CPUExecutionProvider",
            ]
            assert enable_fallback == 0

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(RuntimeMissingError, match="fell back to CPUExecutionProvider"):
        Session(MODEL, provider="cuda")


def test_model_over_the_protobuf_limit_points_to_files():
    class TooLarge:
        def SerializeToString(self):
            raise ValueError("exceeds maximum protobuf size of 2GB")

    with pytest.raises(ModelError, match=r"2 GiB.*external data"):
        sessions._to_bytes(TooLarge())


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_impossible_thread_counts_are_refused_before_anything_is_loaded(threads):
    with pytest.raises(OptionError, match=f"threads is {threads}, expected 1 to"):
        Session(b"never looked at", threads=threads)


@pytest.mark.parametrize("form", ["proto", "bytes", "path"])
def test_an_operator_that_is_missing_for_float64_points_to_float32(form, tmp_path):
    proto = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17]>
        g (double[1, 1, 2, 2] x) => (double[1, 1, 2, 2] y)
        <double[1, 1, 1, 1] w = {1}> { y = Conv(x, w) }"""
    )
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    source = {"proto": proto, "bytes": proto.SerializeToString(), "path": path}[form]
    with pytest.raises(ModelError, match=r"Conv.* float64: convert the model to float32$"):
        Session(source)


def test_an_operator_that_is_missing_for_integers_points_nowhere():
    proto = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17]>
        g (int32[2, 2] x) => (int32[2, 2] y) { y = Gemm(x, x) }"""
    )
    with pytest.raises(ModelError, match="Gemm") as caught:
        Session(proto)
    assert "convert" not in str(caught.value)


ENDLESS = """
    <ir_version: 8, opset_import: ["" : 17]> loop (float[N, 2] x) => (float[N, 2] y) {
        y = Loop (, , x) <body = body (int64 i, bool c, float[N, 2] v) =>
            (bool d, float[N, 2] w) { d = Identity (c) w = Relu (v) }>
    }
"""


def test_a_loop_without_end_is_ended(monkeypatch, capfd):
    monkeypatch.setattr(sessions, "_PATIENCE", 0.5)
    session = Session(onnx.parser.parse_model(ENDLESS), threads=1)
    with pytest.raises(ModelError, match=r"its loops did not end within") as caught:
        session.run(None, {"x": np.ones((1, 2), np.float32)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_loop_that_ends_in_time_is_left_alone(monkeypatch):
    proto = onnx.parser.parse_model(ENDLESS)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3), "n"))
    proto.graph.node[0].input[0] = "n"
    x = np.ones((1, 2), np.float32)
    assert (Session(proto, threads=1).run(None, {"x": x})[0] == x).all()
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())
