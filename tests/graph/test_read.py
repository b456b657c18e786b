"""Reading: good files come back whole, every bad one is refused in one clear line."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import CLASSIFIER, classifier, parse
from large import save_outside
from onnx import helper, numpy_helper

from mmbm_onnx.errors import ModelError, OptionError
from mmbm_onnx.graph import read
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.read import from_proto, read_model
from mmbm_onnx.graph.sites import find_sites

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier().SerializeToString())
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_file_comes_back_whole(model_file: Path) -> None:
    model = read_model(model_file)
    assert model.proto.SerializeToString() == model_file.read_bytes()
    assert model.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert model.path == model_file
    assert model.label == str(model_file)


def test_a_path_may_be_text_and_a_link(model_file: Path) -> None:
    link = model_file.with_name("link.onnx")
    link.symlink_to(model_file)
    assert read_model(str(link)).sha256 == read_model(model_file).sha256


def test_a_directory_with_one_model_is_that_model(model_file: Path) -> None:
    (model_file.parent / "labels.txt").write_text("cat")
    (model_file.parent / "old.onnx").mkdir()
    assert read_model(model_file.parent).path == model_file


def test_a_directory_with_no_or_two_models_is_refused(model_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no .onnx file" in refusal(empty)
    (tmp_path / "second.onnx").write_bytes(model_file.read_bytes())
    assert "2 .onnx files" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"PK\3\4" + b"archive/data.pkl" * 9, "looks like a PyTorch checkpoint: export the model"),
        (pickle.dumps({}, protocol=2), "torch.onnx.export"),
        (b"\x89HDF\r\n\x1a\n" * 9, "looks like a Keras model: convert it with tf2onnx"),
        (b"\x1c\0\0\0TFL3" * 9, "looks like a TensorFlow Lite model"),
        (b"\x1c\0\0\0ORTM" * 9, "give the .onnx file that it was made from"),
        (b'\x10\0\0\0\0\0\0\0{"a":{}}' * 9, "looks like safetensors"),
        (PNG, "not an ONNX model"),
        (b"\x00" * 64, "not an ONNX model"),
        (b"just some text, no model at all\n", "not an ONNX model"),
        (pickle.dumps({"weights": [1.0, 2.0]}), "not an ONNX model"),
        (random.Random(0).randbytes(4096), "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (onnx.TensorProto(name="t", dims=[1]).SerializeToString(), "not an ONNX model"),
    ],
)
def test_what_is_not_a_model_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert expected in refusal(path)
    assert str(path) in refusal(path)


def test_a_truncated_file_is_refused_wherever_it_ends(model_file: Path) -> None:
    whole = model_file.read_bytes()
    for end in range(1, len(whole), 7):
        model_file.write_bytes(whole[:end])
        refusal(model_file)


def test_missing_and_irregular_files_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.onnx")
    dangling = tmp_path / "dangling.onnx"
    dangling.symlink_to(tmp_path / "gone")
    assert "does not exist" in refusal(dangling)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    assert "not a regular file" in refusal(pipe)
    assert "not a regular file" in refusal("/dev/zero")
    refusal("nul\0byte.onnx")
    refusal(tmp_path / ("x" * 5000))


def test_an_unreadable_file_is_refused(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "Permission denied" in refusal(model_file)


def test_a_file_above_the_limit_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # sparse: takes no room

    def forbidden(self: Path) -> bytes:
        raise AssertionError("read although too large")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert "2 GiB" in refusal(path)


def test_a_model_in_memory_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = classifier()
    monkeypatch.setattr(read, "LIMIT", proto.ByteSize() - 1)
    with pytest.raises(ModelError, match="2 GiB"):
        from_proto(proto)


def test_what_the_checker_refuses_is_refused_in_one_line(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.node[1].op_type = "Rellu"
    assert "Rellu" in refusal(write(tmp_path / "m.onnx", proto))
    proto = classifier()
    proto.graph.node[1].input[0] = "nowhere"
    assert "nowhere" in refusal(write(tmp_path / "m.onnx", proto))


def test_a_model_newer_than_onnx_asks_for_an_upgrade(tmp_path: Path) -> None:
    proto = classifier()
    proto.ir_version = 10_000
    assert "upgrade onnx" in refusal(write(tmp_path / "m.onnx", proto))
    proto = classifier()
    proto.opset_import[0].version = 999
    assert "upgrade onnx" in refusal(write(tmp_path / "m.onnx", proto))


def test_a_model_needs_one_version_of_the_standard_operators(tmp_path: Path) -> None:
    proto = classifier()
    del proto.opset_import[:]
    assert "no version of the standard" in refusal(write(tmp_path / "m.onnx", proto))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert "no version of the standard" in refusal(write(tmp_path / "m.onnx", proto))
    proto = classifier()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    assert "several versions" in refusal(write(tmp_path / "m.onnx", proto))


def test_custom_domains_are_read_when_imported(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.node[1].domain = "com.microsoft"
    proto.graph.node[1].op_type = "FusedConv"
    assert "com.microsoft" in refusal(write(tmp_path / "m.onnx", proto))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert read_model(write(tmp_path / "m.onnx", proto)).proto == proto


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""]
)
def test_raw_data_must_fit_the_dims(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    proto = classifier()
    weights = proto.graph.initializer[0]
    weights.raw_data = spoil(weights.raw_data)
    text = refusal(write(tmp_path / "m.onnx", proto))
    assert weights.name in text
    assert "damaged" in text


@pytest.mark.parametrize(
    ("kind", "field", "count"),
    [
        (onnx.TensorProto.FLOAT, "float_data", 6),
        (onnx.TensorProto.DOUBLE, "double_data", 6),
        (onnx.TensorProto.INT64, "int64_data", 6),
        (onnx.TensorProto.INT32, "int32_data", 6),
        (onnx.TensorProto.BOOL, "int32_data", 6),
        (onnx.TensorProto.FLOAT16, "int32_data", 6),
        (onnx.TensorProto.UINT64, "uint64_data", 6),
        (onnx.TensorProto.COMPLEX64, "float_data", 12),
        (onnx.TensorProto.INT4, "int32_data", 3),
    ],
)
def test_typed_data_must_fit_the_dims(tmp_path: Path, kind: int, field: str, count: int) -> None:
    proto = classifier()
    tensor = proto.graph.initializer.add(name="extra", data_type=kind, dims=[2, 3])
    values = getattr(tensor, field)
    values.extend([0] * count)
    read_model(write(tmp_path / "m.onnx", proto))
    values.append(0)
    assert "'extra'" in refusal(write(tmp_path / "m.onnx", proto))
    del values[count - 1 :]
    assert "'extra'" in refusal(write(tmp_path / "m.onnx", proto))


def test_strings_must_fit_the_dims(tmp_path: Path) -> None:
    proto = classifier()
    tensor = proto.graph.initializer.add(name="extra", data_type=onnx.TensorProto.STRING, dims=[2])
    tensor.string_data.extend([b"a", b"b"])
    read_model(write(tmp_path / "m.onnx", proto))
    tensor.string_data.append(b"c")
    assert "'extra'" in refusal(write(tmp_path / "m.onnx", proto))


def test_data_of_another_type_is_refused(tmp_path: Path) -> None:
    proto = classifier()
    tensor = proto.graph.initializer.add(name="extra", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.int32_data.append(7)
    assert "another type" in refusal(write(tmp_path / "m.onnx", proto))


@pytest.mark.parametrize("dims", [[10**15], [2**40, 2**40], [-1], [-4, -27]])
def test_huge_and_negative_dims_are_refused(tmp_path: Path, dims: list[int]) -> None:
    proto = classifier()
    weights = proto.graph.initializer[0]
    del weights.dims[:]
    weights.dims.extend(dims)
    assert "damaged" in refusal(write(tmp_path / "m.onnx", proto))


def test_unknown_types_are_refused(tmp_path: Path) -> None:
    for kind in (0, 99):
        proto = classifier()
        proto.graph.initializer[0].data_type = kind
        assert "unknown element type" in refusal(write(tmp_path / "m.onnx", proto))


def test_empty_and_scalar_tensors_are_whole(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "none"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1).reshape(()), "one"))
    assert read_model(write(tmp_path / "m.onnx", proto)).proto == proto


def test_damage_is_found_in_constants_subgraphs_and_functions(tmp_path: Path) -> None:
    for text in (
        "m (float[N,2] x) => (float[N,2] y) { k = Constant <value = float[1] {1.0}> () "
        "y = Add (x, k) }",
        "m (float[N,2] x, bool c) => (float[N,2] y) { y = If (c) <"
        "then_branch = t () => (float[N,2] a) { k = Constant <value = float[1] {1.0}> () "
        "a = Add (x, k) }, else_branch = e () => (float[N,2] b) { b = Neg (x) }> }",
        "m (float[N,2] x) => (float[N,2] y) { y = own.f (x) } "
        '<domain: "own", opset_import: ["" : 17]> '
        "f (a) => (b) { k = Constant <value = float[1] {1.0}> () b = Add (a, k) }",
    ):
        proto = parse('<ir_version: 8, opset_import: ["" : 17, "own" : 1]> ' + text)
        read_model(write(tmp_path / "m.onnx", proto))
        (tensor,) = read.tensors(proto)
        tensor.dims[0] = 3
        assert "damaged" in refusal(write(tmp_path / "m.onnx", proto))


def test_sparse_tensors_are_refused_by_name(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse_weight")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "where")
    sparse = helper.make_sparse_tensor(values, indices, [3])
    proto = classifier()
    proto.graph.sparse_initializer.append(sparse)
    assert "'sparse_weight' is sparse" in refusal(write(tmp_path / "m.onnx", proto))
    proto = classifier()
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], sparse_value=sparse))
    assert "'k' is sparse" in refusal(write(tmp_path / "m.onnx", proto))


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    whole = parse(
        CLASSIFIER.replace("GlobalAveragePool (r)", "GlobalAveragePool (rectified)").replace(
            "r = Relu", "rectified = Relu"
        )
    ).SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole.replace(b"rectified", b"r\xff\xfectified"[:9]))
    assert "not UTF-8" in refusal(path)


def test_a_proto_is_copied_and_never_changed() -> None:
    proto = classifier()
    before = proto.SerializeToString()
    model = from_proto(proto)
    model.proto.graph.node[1].op_type = "Tanh"
    assert proto.SerializeToString() == before
    assert model.path is None
    assert model.label == "net"
    assert from_proto(proto).sha256 == model.sha256


def test_a_proto_that_refers_to_files_is_refused(tmp_path: Path) -> None:
    path = save_outside(classifier(), tmp_path / "m.onnx")
    proto = onnx.load(path, load_external_data=False)
    with pytest.raises(ModelError, match="external data"):
        from_proto(proto)


def _mutant(rng: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.6:
            data[place] ^= 1 << rng.randrange(8)
        elif kind < 0.75:
            del data[place : place + rng.randrange(1, 12)]
        elif kind < 0.95:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + rng.randrange(1, 24)]
        else:
            data = data[: max(1, place)]
    return bytes(data)


BRANCHING = """
<ir_version: 10, opset_import: ["" : 17, "own" : 1]>
net (float[N,3,8,8] x) => (float[N,5] y)
<float[2,3,1,1] w, float[5,2] v, float six = {6.0}, float zero = {0.0},
 int64[4] s = {0, 2, -1, 8}> {
    c = Conv (x, w)
    q = Clip (c, zero, six)
    t = Transpose <perm = [0, 2, 3, 1]> (q)
    u = Transpose <perm = [0, 3, 1, 2]> (t)
    h = Reshape (u, s)
    o = own.act (h)
    total = ReduceSum <keepdims = 0> (o)
    yes = Greater (total, zero)
    z = If (yes) <
        then_branch = a () => (p) { p = Relu (o) },
        else_branch = b () => (n) { k = Neg (o) n = Relu (k) }
    >
    m = ReduceMean <axes = [2, 3], keepdims = 0> (z)
    l = Gemm <transB = 1> (m, v)
    y = Softmax <axis = 1> (l)
}
<domain: "own", opset_import: ["" : 17]>
act (a) => (b) { m = Relu (a) b = LeakyRelu (m) }
"""


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "mutant.onnx"
    originals = [parse(text).SerializeToString() for text in (CLASSIFIER, BRANCHING, BRANCHING)]
    survived = 0
    for _ in range(100):
        path.write_bytes(_mutant(rng, rng.choice(originals)))
        try:
            proto, _ = inline_activation_functions(read_model(path).proto)
            find_sites(proto)
            interface = find_interface(proto)
            find_sites(proto, logits=interface.logits)
            survived += 1
        except (ModelError, OptionError) as error:
            assert "\n" not in str(error)
    assert survived > 0
