"""Weights that stay in their files, from reading to the written graphs and their proof."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from large import save_outside, treat_as_large
from quadrants import planted_images

from mmbm_onnx import HardenResult, harden, verify
from mmbm_onnx.errors import ModelError, OutputError
from mmbm_onnx.graph.mapped import is_mapped, mapped
from mmbm_onnx.graph.read import read_model

QUICK = {"epochs": 25, "batch_size": 60, "threads": 1}
NAMES = ("hardened.onnx", "hardened.onnx.data", "detector.onnx", "detector.onnx.data")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    treat_as_large(monkeypatch)
    (tmp_path / "in").mkdir()
    return save_outside(planted_images(), tmp_path / "in" / "model.onnx")


def save(result: HardenResult, folder: Path, **options: bool) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    return result.save(
        folder / "hardened.onnx", detector_output=folder / "detector.onnx", **options
    )


def answers(path: Path, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def test_it_is_hardened_as_one_that_is_loaded(
    case, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = harden(model, case.npz, **QUICK)
    assert result.passed
    out = tmp_path / "out"
    report = save(result, out)
    assert {file.name for file in out.iterdir()} == set(NAMES)
    shutil.rmtree(model.parent)  # what was written stands on its own

    written = {name: read_model(out / name) for name in ("hardened.onnx", "detector.onnx")}
    assert [len(mapped(entry.proto)) for entry in written.values()] == [3, 3]
    assert [entry["sha256"] for entry in report["files"]] == [
        entry.sha256 for entry in written.values()
    ]
    monkeypatch.undo()
    whole = harden(planted_images(), case.npz, **QUICK)
    assert {name: bound.tolist() for name, bound in whole.bounds.items()} == {
        name: bound.tolist() for name, bound in result.bounds.items()
    }
    save(whole, tmp_path / "whole")
    with np.load(case.triggered) as file:
        attacked = file["x"].astype(np.float32) / 255
    for name in ("hardened.onnx", "detector.onnx"):
        for x in (case.test[0], attacked):
            pairs = zip(answers(out / name, x), answers(tmp_path / "whole" / name, x), strict=True)
            for mine, other in pairs:
                assert np.array_equal(mine, other), name


def test_weights_come_back_byte_for_byte_and_on_pages(case, model: Path, tmp_path: Path) -> None:
    save(harden(model, case.npz, **QUICK), tmp_path / "out")
    before = onnx.load(model)
    for name in ("hardened.onnx", "detector.onnx"):
        light = onnx.load(tmp_path / "out" / name, load_external_data=False)
        outside = [t for t in light.graph.initializer if t.data_location == t.EXTERNAL]
        for tensor in outside:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries.keys() == {"location", "offset", "length"}
            assert entries["location"] == f"{name}.data"
            assert int(entries["offset"]) % 4096 == 0
        after = {t.name: t for t in onnx.load(tmp_path / "out" / name).graph.initializer}
        assert {t.name for t in outside} == {t.name for t in before.graph.initializer}
        for tensor in before.graph.initializer:
            assert after[tensor.name].raw_data == tensor.raw_data


def test_tensors_that_share_bytes_go_on_sharing_them(case, model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model, load_external_data=False)
    twin = proto.graph.initializer.add()
    twin.CopyFrom(proto.graph.initializer[0])
    twin.name = "twin"
    proto.graph.node[0].input[1] = "twin"
    model.write_bytes(proto.SerializeToString())
    save(harden(model, case.npz, **QUICK), tmp_path / "out")
    light = onnx.load(tmp_path / "out" / "hardened.onnx", load_external_data=False)
    places = {
        t.name: [entry.value for entry in t.external_data]
        for t in light.graph.initializer
        if t.data_location == t.EXTERNAL
    }
    assert places["twin"] == places[proto.graph.initializer[0].name]


def test_verify_proves_them_and_finds_one_changed_weight(case, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    save(harden(model, case.npz, **QUICK), out)
    shown = {"detector": out / "detector.onnx", "threads": 1}
    assert verify(model, out / "hardened.onnx", case.npz, **shown).passed
    data = out / "hardened.onnx.data"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    found = verify(model, out / "hardened.onnx", case.npz, **shown)
    (gate,) = [gate for gate in found.gates if gate.name == "hardened_unchanged"]
    assert not gate.passed
    assert "is not the original's" in gate.message


def test_a_file_that_changes_meanwhile_is_told_and_nothing_written(
    case, model: Path, tmp_path: Path
) -> None:
    result = harden(model, case.npz, **QUICK)
    weights = model.parent / "weights.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(ModelError, match=r"weights\.bin: the file changed while it was used"):
        save(result, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_existing_weights_are_overwritten_only_when_asked(
    case, model: Path, tmp_path: Path
) -> None:
    result = harden(model, case.npz, **QUICK)
    out = tmp_path / "out"
    out.mkdir()
    (out / "detector.onnx.data").write_text("mine")
    with pytest.raises(OutputError, match=r"detector\.onnx\.data: exists already"):
        save(result, out)
    assert [file.name for file in out.iterdir()] == ["detector.onnx.data"]
    save(result, out, force=True)
    assert read_model(out / "detector.onnx")


def test_bytes_of_odd_types_and_places_are_loaded(tmp_path: Path, monkeypatch) -> None:
    treat_as_large(monkeypatch)
    proto = planted_images()
    path = save_outside(proto, tmp_path / "model.onnx")
    light = onnx.load(path, load_external_data=False)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"\0" + weights.read_bytes())
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + 1)
    path.write_bytes(light.SerializeToString())
    assert not any(is_mapped(tensor) for tensor in read_model(path).proto.graph.initializer)


def test_a_model_in_memory_whose_weights_are_in_files_is_refused(case, model: Path) -> None:
    proto = read_model(model).proto
    with pytest.raises(ModelError, match="pass the path of its file"):
        harden(proto, case.npz, **QUICK)
