"""One job in every form its model and samples may take, through the real command line.

In this process, since importing torch takes longer than the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from command_line import WRITTEN, contents
from onnx import TensorProto, numpy_helper
from quadrants import TARGET, Case, draw, planted_images

FAST = ("--epochs", "2", "--batch-size", "60", "--threads", "1", "--device", "cpu")
Harden = Callable[..., Result]


@pytest.fixture
def harden(run: Callable[..., Result], case: Case, tmp_path: Path) -> Harden:
    """Harden a model (by default the case's) in the test's directory, with these options."""

    def call(*args: object, model: Path = case.model, clean: Path = case.npz) -> Result:
        outputs = ("-o", tmp_path / "model.hardened.onnx", "--report")
        outputs += (tmp_path / "model.report.json", "--detector-output")
        outputs += (tmp_path / "model.detector.onnx", "--force")
        done = run("harden", model, "--clean-dir", clean, *outputs, *FAST, *args)
        assert done.exit_code == 0, done.output
        return done

    return call


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "model.report.json").read_text())


def bounds(folder: Path) -> np.ndarray:
    proto = onnx.load(folder / "model.hardened.onnx")
    (found,) = [tensor for tensor in proto.graph.initializer if "mmbm_bound" in tensor.name]
    return numpy_helper.to_array(found)


def attacked(proto: Path, case: Case, dtype: str = "float32", batch: int = 0) -> float:
    """Attack success rate of a graph on the triggered set."""
    import onnxruntime

    with np.load(case.triggered) as file:
        x = (file["x"] / 255).astype(dtype)
    session = onnxruntime.InferenceSession(str(proto), providers=["CPUExecutionProvider"])
    size = batch or len(x)
    parts = [
        session.run(None, {"image": x[start : start + size]})[0]
        for start in range(0, len(x) - size + 1, size)
    ]
    return float((np.concatenate(parts).argmax(1) == TARGET).mean())


def test_folder_and_archives_of_the_same_pixels_give_the_same(
    harden: Harden, case: Case, tmp_path: Path
) -> None:
    by_class = sorted((path.parent.name, path.name) for path in case.folder.rglob("*.png"))
    order = np.array([int(name.removesuffix(".png")) for _, name in by_class])
    x, y = draw(240, seed=1)
    x, y = x[order, None], y[order]
    forms = {"nchw": x, "nhwc": x.transpose(0, 2, 3, 1), "grey": x[:, 0]}
    forms["float"] = (x * np.float64(1 / 255)).astype(np.float32)
    written = {}
    harden(clean=case.folder)
    written["folder"] = (tmp_path / "model.hardened.onnx").read_bytes()
    expected = bounds(tmp_path)
    for name, array in forms.items():
        np.savez(tmp_path / "clean.npz", x=array, y=y)
        done = harden(clean=tmp_path / "clean.npz")
        assert done.stderr == ""
        assert np.allclose(bounds(tmp_path), expected, rtol=1e-6, atol=0)
        written[name] = (tmp_path / "model.hardened.onnx").read_bytes()
    assert len(set(written.values())) == 1
    clean_set = report(tmp_path)["clean_set"]
    assert clean_set["preprocessing"] is None
    assert clean_set["notes"] == ["x is float: passed to the model as it is, no preprocessing"]


def test_preprocessing_for_floats_is_warned_of(harden: Harden, tmp_path: Path) -> None:
    x, y = draw(240, seed=1)
    np.savez(tmp_path / "clean.npz", x=(x[:, None] / 255).astype(np.float32), y=y)
    done = harden("--mean", "0.5", clean=tmp_path / "clean.npz")
    (warning,) = done.stderr.splitlines()
    assert warning.endswith("'x' is float: the preprocessing options do not apply")


def test_a_preprocessor_config_equals_its_flags(harden: Harden, case: Case, tmp_path: Path) -> None:
    # The same model for inputs in another unit: (pixels / 255 - 0.25) / 0.5.
    proto = planted_images()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == "w":
            shift = 0.25 * values.sum(axis=(1, 2, 3))
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(0.5), "w"))
        elif tensor.name == "b":
            tensor.CopyFrom(numpy_helper.from_array((values + shift).astype("f4"), "b"))
    onnx.save(proto, tmp_path / "model.onnx")
    config = {
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.25],
        "image_std": [0.5],
        "do_pad": False,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    file = ("--preprocess", tmp_path / "preprocessor_config.json")
    flags = ("--mean", "0.25", "--std", "0.5")
    written, told = [], []
    for options in (file, flags):
        assert harden(*options, model=tmp_path / "model.onnx", clean=case.folder).stderr == ""
        written.append([(tmp_path / name).read_bytes() for name in WRITTEN[:2]])
        told.append(report(tmp_path))
    assert written[0] == written[1]
    assert told[0]["figures"] == told[1]["figures"]
    assert told[0]["figures"]["original"]["accuracy"] > 0.98
    assert told[0]["clean_set"]["notes"] == ["preprocessor_config.json: ignored do_pad"]
    assert told[1]["clean_set"]["preprocessing"]["mean"] == [0.25]


def test_a_directory_with_external_data(harden: Harden, run, case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save(
        onnx.load(case.model),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    before = contents(folder)
    assert (folder / "weights.bin").stat().st_size > 100
    harden()
    plain = bounds(tmp_path)
    harden(model=folder)
    assert np.array_equal(bounds(tmp_path), plain)
    assert contents(folder) == before
    done = run(
        *("verify", folder, tmp_path / "model.hardened.onnx", "--clean-dir", case.npz),
        *("--detector", tmp_path / "model.detector.onnx"),
    )
    assert done.exit_code == 0, done.output
    # The data files are inputs, also where the model's own file was named.
    for option in ("-o", "--report"):
        args = ("--clean-dir", case.npz, "--force", option, folder / "weights.bin")
        done = run("harden", folder / "model.onnx", *args)
        assert done.exit_code == 2
        assert "would overwrite an input" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch(harden: Harden, run, case: Case, tmp_path: Path, batch: int) -> None:
    proto = planted_images()
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(proto, tmp_path / "model.onnx")
    harden(model=tmp_path / "model.onnx")
    assert report(tmp_path)["model"]["batch"] == batch
    for name in WRITTEN[:2]:
        written = onnx.load(tmp_path / name)
        for info in (*written.graph.input, *written.graph.output):
            assert info.type.tensor_type.shape.dim[0].dim_value == batch
        assert attacked(tmp_path / name, case, batch=batch) < 0.1
    done = run(
        *("verify", tmp_path / "model.onnx", tmp_path / "model.hardened.onnx"),
        *("--clean-dir", case.npz, "--detector", tmp_path / "model.detector.onnx"),
    )
    assert done.exit_code == 0, done.output


def without_convolution() -> onnx.ModelProto:
    """The case's model as a matrix from pixels to the activations of each quadrant."""
    proto = planted_images()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    matrix = np.zeros((2, 2, 2, 8, 8), np.float32)  # channel, row and column of quadrant, pixels
    for row in (0, 1):
        for column in (0, 1):
            place = (slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            matrix[(slice(None), row, column, *place)] = weights["w"][:, 0]
    weights["w"] = matrix.reshape(8, 64).T
    weights["b"] = np.repeat(weights["b"], 4)
    dense = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        quadrants (float[N, 1, 8, 8] image) => (float[N, 4] logits)
        {
            pixels = Flatten (image)
            c = Gemm (pixels, w, b)
            active = Relu (c)
            logits = MatMul (active, head)
        }
        """
    )
    dense.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in weights.items()
    )
    return dense


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions(
    harden: Harden, run, case: Case, tmp_path: Path, dtype: str, granularity: str
) -> None:
    kind = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[dtype]
    # ONNX Runtime has no convolution in float64.
    proto = planted_images() if dtype == "float16" else without_convolution()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del proto.graph.value_info[:]
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = kind
    onnx.save(proto, tmp_path / "model.onnx")
    harden("--granularity", granularity, model=tmp_path / "model.onnx")
    assert bounds(tmp_path).dtype == dtype
    told = report(tmp_path)
    assert told["model"]["input_dtype"] == dtype
    assert told["parity"]["max_relative_difference"] <= told["parity"]["tolerance"]
    assert attacked(tmp_path / "model.onnx", case, dtype) > 0.95
    assert attacked(tmp_path / "model.detector.onnx", case, dtype) < 0.1
    done = run(
        *("verify", tmp_path / "model.onnx", tmp_path / "model.hardened.onnx"),
        *("--clean-dir", case.npz, "--detector", tmp_path / "model.detector.onnx"),
        *("--triggered", case.triggered, "--max-attack-success-rate", 0.1),
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("method", ["mmac", "mmbm", "mmac-reference"])
def test_other_methods(harden: Harden, tmp_path: Path, method: str) -> None:
    harden("--method", method, "--seed", "3")
    told = report(tmp_path)
    assert told["method"]["name"] == method
    assert told["method"]["settings"]["epochs"] == 2
    assert told["seed"] == 3
    assert (bounds(tmp_path) > 0).all()
