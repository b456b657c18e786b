"""What differs on Windows and macOS, as far as it can be seen from here."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mmbm_onnx.errors import ModelError, OutputError
from mmbm_onnx.graph import external, write
from mmbm_onnx.graph.external import external_files
from mmbm_onnx.graph.write import check_targets, write_files


def refused(*targets: Path, inputs: tuple[Path, ...] = ()) -> str:
    with pytest.raises(OutputError) as caught:
        check_targets(targets, inputs=inputs, force=True)
    return str(caught.value)


def test_outputs_that_differ_in_case_alone_are_one_file_elsewhere(tmp_path: Path) -> None:
    text = refused(tmp_path / "Model.onnx", tmp_path / "model.ONNX")
    assert "Model.onnx is another output" in text and text.endswith("choose another name")
    composed, decomposed = (unicodedata.normalize(form, "modèle.onnx") for form in ("NFC", "NFD"))
    assert "is another output" in refused(tmp_path / composed, tmp_path / decomposed)
    for name in ("a", "A"):
        (tmp_path / name).mkdir(exist_ok=True)
    if not (tmp_path / "a").samefile(tmp_path / "A"):
        first, second = tmp_path / "a" / "x", tmp_path / "A" / "x"
        check_targets([first, second])
        assert "two outputs" in refused(first, second, second)


def test_an_input_by_another_case_is_an_input(tmp_path: Path) -> None:
    model, other = tmp_path / "model.onnx", tmp_path / "Model.onnx"
    model.write_bytes(b"model")
    if not other.exists():
        check_targets([other], inputs=[model])  # another file here
        os.link(model, other)  # as if case did not matter
    assert "would overwrite an input" in refused(other, inputs=(model,))
    assert "would overwrite an input" in refused(model, inputs=(model, other))


@pytest.mark.parametrize(
    "name",
    ["nul", "NUL.onnx", "aux.hardened.onnx", "Com1.onnx", "lpt9", "con .onnx", "a.", "a ", "a:b"],
)
def test_names_that_windows_keeps_for_itself(tmp_path: Path, monkeypatch, name: str) -> None:
    check_targets([tmp_path / name])
    monkeypatch.setattr(write, "_WINDOWS", True)
    assert "on Windows; choose another name" in refused(tmp_path / name)
    check_targets([tmp_path / "null.onnx", tmp_path / "com.onnx", tmp_path / "a.b"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at open files")
@pytest.mark.parametrize("links", [True, False])
def test_no_open_file_is_renamed_or_removed(tmp_path: Path, monkeypatch, links: bool) -> None:
    """Windows would refuse it."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    moved = []

    def closed(method):
        def call(self: Path, *args: object, **options: object) -> object:
            for entry in Path("/proc/self/fd").iterdir():
                try:
                    held = entry.samefile(self)
                except OSError:
                    continue
                assert not held, f"{self} is open"
            moved.append(self)
            return method(self, *args, **options)

        return call

    for name in ("replace", "rename", "unlink"):
        monkeypatch.setattr(Path, name, closed(getattr(Path, name)))
    if not links:
        # What a FAT file system answers on Windows.
        def link(*args: object, **options: object) -> None:
            error = OSError(errno.EINVAL, "Incorrect function")
            error.winerror = 1
            raise error

        monkeypatch.setattr(os, "link", link)
    files = {tmp_path / name: name.encode() for name in ("a", "b")}
    for _ in range(2):
        write_files(files, force=True)
    assert moved
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_other_refusals_of_links_stay_refusals(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)

    def link(*args: object, **options: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OutputError, match="no file was written"):
        write_files({tmp_path / "a": b"a"})
    assert list(tmp_path.iterdir()) == []


def model_with_data(folder: Path, location: str) -> tuple[onnx.ModelProto, Path]:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph([], "g", [], [], initializer=[tensor])
    file = folder / location
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return helper.make_model(graph), folder / "model.onnx"


def test_streams_beside_a_file_are_refused_on_windows(tmp_path: Path, monkeypatch) -> None:
    proto, path = model_with_data(tmp_path, "weights.bin:hidden")
    assert len(external_files(proto, path)) == 1  # a name like any other here
    monkeypatch.setattr(external, "_WINDOWS", True)
    with pytest.raises(ModelError, match="a name with a colon"):
        external_files(proto, path)


def test_every_folder_on_the_way_is_looked_at_on_windows(tmp_path: Path, monkeypatch) -> None:
    proto, path = model_with_data(tmp_path, "sub/weights.bin")
    proto.graph.initializer[0].external_data[0].value = "sub\\weights.bin"
    monkeypatch.setattr(external, "_WINDOWS", True)
    (file,) = external_files(proto, path)
    assert file == tmp_path / "sub" / "weights.bin"
    (tmp_path / "sub").rename(tmp_path / "elsewhere")
    (tmp_path / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="behind the symbolic link"):
        external_files(proto, path)


def test_junctions_are_links() -> None:
    mode = {"st_mode": 0o40755}
    assert external._is_link(SimpleNamespace(**mode, st_reparse_tag=0xA0000003))
    assert not external._is_link(SimpleNamespace(**mode, st_reparse_tag=0x9000001A))  # OneDrive
    assert not external._is_link(SimpleNamespace(**mode))
