"""External data: read from plain files beside the model, refused from anywhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from graph_models import classifier, edit_external, parse
from large import save_outside

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph import external, read
from mmbm_onnx.graph.external import external_bytes, external_files, load_external_data
from mmbm_onnx.graph.read import read_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return save_outside(classifier(), folder / "model.onnx")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_external_data_is_brought_in(saved: Path) -> None:
    model = read_model(saved)
    assert model.proto == classifier()
    data = saved.read_bytes() + (saved.parent / "weights.bin").read_bytes()
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    assert read_model(saved.parent).sha256 == model.sha256


def test_the_files_are_hashed_in_order_of_their_names(tmp_path: Path) -> None:
    proto = classifier()
    path = tmp_path / "model.onnx"
    for name, tensor in zip(("b.bin", "a.bin"), proto.graph.initializer, strict=True):
        (tmp_path / name).write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, name)
        tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    assert external_files(proto, path) == (tmp_path / "a.bin", tmp_path / "b.bin")
    parts = [path, tmp_path / "a.bin", tmp_path / "b.bin"]
    expected = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    model = read_model(path)
    assert model.sha256 == expected
    assert model.proto == classifier()


def test_data_may_lie_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = save_outside(classifier(), tmp_path / "model.onnx", "data/weights.bin")
    assert read_model(path).proto == classifier()


def test_without_a_length_the_dims_tell_it(saved: Path) -> None:
    edit_external(saved, length=None)
    assert read_model(saved).proto == classifier()


def test_locations_outside_the_directory_are_refused(saved: Path) -> None:
    outside = saved.parent.parent / "secret.bin"
    outside.write_bytes((saved.parent / "weights.bin").read_bytes())
    for location in ("../secret.bin", "sub/../../secret.bin", "..\\secret.bin"):
        edit_external(saved, location=location)
        assert "leaves the model's directory" in refusal(saved)
    for location in (str(outside), "C:\\secret.bin", "\\\\host\\share\\secret.bin", "C:secret"):
        edit_external(saved, location=location)
        assert "absolute path" in refusal(saved)


@pytest.mark.parametrize("location", ["", "nul\0byte", "x" * 5000, "absent.bin", "model.onnx/deep"])
def test_locations_that_lead_nowhere_are_refused(saved: Path, location: str) -> None:
    edit_external(saved, location=location)
    assert "cp -L" in refusal(saved)


@pytest.mark.parametrize("location", [".", "folder", "./"])
def test_locations_that_are_directories_are_refused(saved: Path, location: str) -> None:
    (saved.parent / "folder").mkdir()
    edit_external(saved, location=location)
    assert "not a regular file" in refusal(saved)


def test_links_are_refused_with_the_way_out(saved: Path) -> None:
    weights = saved.parent / "weights.bin"
    stored = saved.parent.parent / "stored.bin"
    weights.rename(stored)
    weights.symlink_to(stored)
    assert "symbolic link" in refusal(saved)
    assert "cp -L" in refusal(saved)
    weights.unlink()
    weights.hardlink_to(stored)
    assert "hard link" in refusal(saved)
    stored.unlink()
    assert read_model(saved).proto == classifier()


def test_a_linked_directory_on_the_way_is_refused(saved: Path) -> None:
    (saved.parent / "way").symlink_to(saved.parent)
    edit_external(saved, location="way/weights.bin")
    assert "symbolic link" in refusal(saved)


def test_a_link_put_in_place_after_the_check_is_not_followed(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load(saved, load_external_data=False)
    weights = saved.parent / "weights.bin"
    locate = external._locate

    def swap(tensor: onnx.TensorProto, path: Path, *, is_weight: bool) -> object:
        piece = locate(tensor, path, is_weight=is_weight)
        weights.rename(saved.parent / "moved.bin")
        weights.symlink_to(saved.parent / "moved.bin")
        monkeypatch.setattr(external, "_locate", lambda tensor, path, **_: piece)
        return piece

    monkeypatch.setattr(external, "_locate", swap)
    with pytest.raises(ModelError, match="cannot be read"):
        load_external_data(proto, saved)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"offset": "-8"}, "negative"),
        ({"length": "-432"}, "negative"),
        ({"length": str(10**15)}, "damaged"),
        ({"length": "400"}, "damaged"),
        ({"length": "436"}, "damaged"),
        ({"offset": str(10**15)}, "past the end"),
        ({"offset": "1000"}, "past the end"),
        ({"offset": "1000", "length": None}, "past the end"),
        ({"offset": "two"}, "not a number"),
        ({"length": "1e3"}, "not a number"),
        ({"length": "9" * 6000}, "not a number"),
    ],
)
def test_extents_that_cannot_be_are_refused(
    saved: Path, entries: dict[str, str | None], expected: str
) -> None:
    edit_external(saved, **entries)
    assert expected in refusal(saved)


def test_a_truncated_data_file_is_refused(saved: Path) -> None:
    weights = saved.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "past the end" in refusal(saved)


def test_dims_that_need_more_than_the_data_are_refused(saved: Path) -> None:
    proto = onnx.load(saved, load_external_data=False)
    proto.graph.initializer[0].dims[0] = 5
    saved.write_bytes(proto.SerializeToString())
    assert "its type and dims need 540" in refusal(saved)


def test_a_location_given_twice_is_refused(saved: Path) -> None:
    proto = onnx.load(saved, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="location", value="other.bin")
    saved.write_bytes(proto.SerializeToString())
    assert "described twice" in refusal(saved)


def test_many_tensors_sharing_one_file_cannot_fill_the_memory(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load(saved, load_external_data=False)
    first = proto.graph.initializer[0]
    for number in range(50):
        copy = proto.graph.initializer.add()
        copy.CopyFrom(first)
        copy.name = f"copy_{number}"
    saved.write_bytes(proto.SerializeToString())
    needed = external_bytes(proto, saved)
    assert needed == 51 * 432 + 80
    monkeypatch.setattr(read, "LIMIT", needed)

    def forbidden(*_: object) -> None:
        raise AssertionError("loaded although too large")

    monkeypatch.setattr(read, "load_external_data", forbidden)
    assert "2 GiB" in refusal(saved)


def test_constants_subgraphs_and_functions_may_be_external(tmp_path: Path) -> None:
    proto = parse(
        """
        <ir_version: 10, opset_import: ["" : 17, "own" : 1]>
        m (float[N,2] x, bool c) => (float[N,2] y) {
            k = Constant <value = float[2] {1.0, 2.0}> ()
            s = Add (x, k)
            t = own.f (s)
            y = If (c) <
                then_branch = t () => (a) { j = Constant <value = float[1] {3.0}> ()
                                            a = Add (t, j) },
                else_branch = e () => (b) { b = Neg (t) }
            >
        }
        <domain: "own", opset_import: ["" : 17]>
        f (a) => (b) { k = Constant <value = float[1] {4.0}> () b = Add (a, k) }
        """
    )
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    for number, tensor in enumerate(read.tensors(proto)):
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        (tmp_path / f"{number}.bin").write_bytes(data)
        tensor.ClearField("float_data")
        tensor.raw_data = b""
        onnx.external_data_helper.set_external_data(tensor, f"{number}.bin")
        tensor.ClearField("raw_data")
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    model = read_model(path)
    assert len(external_files(proto, path)) == 3
    arrays = [onnx.numpy_helper.to_array(tensor).tolist() for tensor in read.tensors(model.proto)]
    assert sorted(arrays) == [[1.0, 2.0], [3.0], [4.0]]


def test_weights_larger_than_the_memory_are_refused_unread(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load(saved, load_external_data=False)
    tensor = proto.graph.initializer[0]
    del tensor.dims[:], tensor.external_data[:]
    tensor.dims.extend([2**41])
    tensor.external_data.add(key="location", value="weights.bin")
    saved.write_bytes(proto.SerializeToString())
    with (saved.parent / "weights.bin").open("wb") as stream:
        stream.truncate(2**43)  # sparse: takes no room

    def forbidden(*_: object) -> None:
        raise AssertionError("read although too large")

    monkeypatch.setattr(read, "_hash", forbidden)
    assert "its weights take 8192.0 GiB, the memory of this machine is" in refusal(saved)
