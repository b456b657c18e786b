"""Weights that stay in their files, from reading to the written graphs and their proof."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from large import save_outside, treat_as_large
from onnx import numpy_helper
from quadrants import planted_images

from mmbm_onnx import HardenResult, harden, verify
from mmbm_onnx.errors import ModelError, OutputError
from mmbm_onnx.evaluation import latency, verification
from mmbm_onnx.graph import read
from mmbm_onnx.graph.mapped import is_mapped, mapped, to_array
from mmbm_onnx.graph.read import read_model
from mmbm_onnx.runtime import Session

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


def describe(model: Path, change: Callable[[onnx.TensorProto], None]) -> None:
    """Change what the model's file says of its first weight."""
    proto = onnx.load(model, load_external_data=False)
    change(proto.graph.initializer[0])
    model.write_bytes(proto.SerializeToString())


def test_weights_at_odd_places_stay_and_are_right(case, model: Path) -> None:
    light = onnx.load(model, load_external_data=False)
    weights = model.parent / "weights.bin"
    weights.write_bytes(b"\0" + weights.read_bytes())
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + 1)
    model.write_bytes(light.SerializeToString())
    original = read_model(model).proto
    assert len(mapped(original)) == 3
    wanted = {t.name: t for t in planted_images().graph.initializer}
    for tensor in original.graph.initializer:
        assert np.array_equal(to_array(tensor), numpy_helper.to_array(wanted[tensor.name]))
    assert harden(model, case.npz, **QUICK).passed


def test_two_elements_in_a_byte_are_loaded(tmp_path: Path, monkeypatch) -> None:
    treat_as_large(monkeypatch)
    proto = planted_images()
    proto.graph.initializer.append(
        onnx.helper.make_tensor("packed", onnx.TensorProto.UINT4, [2], b"\x21", raw=True)
    )
    proto.ir_version = 10
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", 21))
    found = read_model(save_outside(proto, tmp_path / "model.onnx")).proto
    assert [is_mapped(tensor) for tensor in found.graph.initializer] == [True] * 3 + [False]
    assert numpy_helper.to_array(found.graph.initializer[3]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.float_data.extend([1.0] * 32), "holds data beside its external data"),
        (lambda t: setattr(t, "raw_data", b"1234"), "holds data beside its external data"),
        (lambda t: setattr(t.segment, "end", 1), "is segmented"),
        (lambda t: t.dims.append(2), "its type and dims need"),
        (lambda t: t.external_data.add(key="mmbm_onnx.folder", value="/"), "that no file may have"),
    ],
)
def test_damaged_descriptions_are_refused(model: Path, change, message: str) -> None:
    describe(model, change)
    with pytest.raises(ModelError, match=message):
        read_model(model)


def test_two_weights_of_one_name_are_refused(model: Path) -> None:
    proto = onnx.load(model, load_external_data=False)
    proto.graph.initializer.append(proto.graph.initializer[0])
    model.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'w' is not a unique initializer"):
        read_model(model)


@pytest.mark.parametrize(("kind", "shape"), [(10, [2, 1, 4, 4]), (1, [2, 1, 4, 5]), (1, [2])])
def test_weights_declared_otherwise_are_refused(model: Path, kind: int, shape: list[int]) -> None:
    proto = onnx.load(model, load_external_data=False)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("w", kind, shape))
    model.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'w' is declared with another type or shape"):
        read_model(model)


def test_a_file_that_changes_while_it_is_read_is_told(model: Path, monkeypatch) -> None:
    weights = model.parent / "weights.bin"
    hashed = read._hash

    def hash_and_change(part: Path, digest: object) -> None:
        hashed(part, digest)
        content = weights.read_bytes()
        weights.write_bytes(content[::-1])

    monkeypatch.setattr(read, "_hash", hash_and_change)
    with pytest.raises(ModelError, match=r"weights\.bin: the file changed while it was read"):
        read_model(model)


def test_a_change_during_verification_is_told(
    case, model: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"
    save(harden(model, case.npz, **QUICK), out)
    judge = verification.detector_threshold

    def change_and_judge(*args: object) -> object:
        data = out / "hardened.onnx.data"
        data.write_bytes(bytes(len(data.read_bytes())))
        return judge(*args)

    monkeypatch.setattr(verification, "detector_threshold", change_and_judge)
    with pytest.raises(ModelError, match=r"hardened\.onnx\.data: the file changed"):
        verify(model, out / "hardened.onnx", case.npz, detector=out / "detector.onnx", threads=1)


@pytest.mark.parametrize("name", ["c:h.onnx", "\\h.onnx", os.fsdecode(b"h\xff.onnx")])
def test_names_that_no_model_may_give_to_its_data_are_refused(
    case, model: Path, tmp_path: Path, name: str
) -> None:
    result = harden(model, case.npz, **QUICK)
    with pytest.raises(OutputError, match="weights cannot lie beside"):
        result.save(tmp_path / name)
    for other in (".", "/"):
        with pytest.raises(OutputError):
            result.save(other)


def test_a_folder_whose_name_is_not_text_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff")
    try:
        shutil.copytree(model.parent, folder)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    with pytest.raises(ModelError, match="must be UTF-8; rename it"):
        read_model(folder / "model.onnx")


def test_latency_is_measured_two_graphs_at_a_time(case, model: Path, monkeypatch) -> None:
    alive: list[int] = []
    loaded: weakref.WeakSet[Session] = weakref.WeakSet()

    class Counted(Session):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            loaded.add(self)
            alive.append(len(loaded))

    monkeypatch.setattr(latency, "Session", Counted)
    report = harden(model, case.npz, **QUICK).report
    assert max(alive) == 2
    assert [(entry["graph"], entry["batch_size"]) for entry in report["latency"]] == [
        (graph, size) for size in (1, 16) for graph in ("original", "hardened", "detector")
    ]
    assert [entry["ratio"] for entry in report["latency"]][::3] == [1.0, 1.0]


def test_a_model_in_memory_whose_weights_are_in_files_is_refused(case, model: Path) -> None:
    proto = read_model(model).proto
    with pytest.raises(ModelError, match="pass the path of its file"):
        harden(proto, case.npz, **QUICK)
