"""Broken inputs and ones made to hurt: how each is made, and what is said of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from quadrants import draw

CLEAN = ("--clean-dir", "clean.npz")
DATA = ("--clean-dir", "data")
X, Y = draw(240, seed=1)


@dataclass(frozen=True)
class Case:
    """An input that is refused.

    Attributes:
        prepare: Spoils a directory that holds a good model.onnx and clean.npz.
        args: Of ``harden``, after the model.
        message: Part of the line that is told.
        status: The exit status.
        torch: Whether it takes the graph's execution in torch to find out.
    """

    prepare: Callable[[Path], None]
    args: tuple[str, ...]
    message: str
    status: int
    torch: bool = False


CASES: dict[str, Case] = {}


def hostile(name: str, message: str, *args: str, status: int = 2, torch: bool = False):
    def note(prepare: Callable[[Path], None]) -> Callable[[Path], None]:
        assert name not in CASES
        CASES[name] = Case(prepare, args or CLEAN, message, status, torch)
        return prepare

    return note


# Files that are no model.


def as_model(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.onnx").write_bytes(content) and None


def picture(size: tuple[int, int] = (8, 8), **options: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 9).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


hostile("text", "model.onnx: not an ONNX model")(as_model(b"This is no model.\n" * 20))
hostile("an empty file", "model.onnx: the file is empty")(as_model(b""))
hostile("a picture", "model.onnx: not an ONNX model")(as_model(picture()))
hostile("a pickle", "model.onnx: not an ONNX model")(
    as_model(pickle.dumps({"weights": [1.0] * 99}))
)
hostile("random bytes", "model.onnx: not an ONNX model")(
    as_model(np.random.default_rng(0).bytes(4000))
)
hostile("a Git LFS pointer", "model.onnx: a Git LFS pointer, not the model itself")(
    as_model(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
)


@hostile("a model cut in half", "model.onnx: not an ONNX model, or a truncated one")
def cut_in_half(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


@hostile("no file", "Path 'model.onnx' does not exist")
def missing(folder: Path) -> None:
    (folder / "model.onnx").unlink()


@hostile("a pipe", "model.onnx: not a regular file")
def pipe(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


@hostile("a directory of two models", "the directory holds 2 .onnx files")
def two_models(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "a.onnx")
    (folder / "model.onnx").mkdir()
    for name in ("a", "b"):
        (folder / "model.onnx" / f"{name}.onnx").write_bytes((folder / "a.onnx").read_bytes())


# Models that are damaged, or no classifiers of ours.


def changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        proto = onnx.load(folder / "model.onnx")
        change(proto)
        (folder / "model.onnx").write_bytes(proto.SerializeToString())

    return prepare


def weight(proto: onnx.ModelProto, name: str = "w") -> TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def model_case(name: str, message: str, *, status: int = 2, torch: bool = False):
    def note(change: Callable[[onnx.ModelProto], None]) -> Callable[[onnx.ModelProto], None]:
        hostile(name, message, status=status, torch=torch)(changed(change))
        return change

    return note


@model_case("hardened already", "model.onnx: is hardened already (method mmac")
def hardened_already(proto: onnx.ModelProto) -> None:
    helper.set_model_props(proto, {"mmbm_onnx.method": "mmac"})


@model_case("an IR version to come", "has IR version 99")
def later_ir(proto: onnx.ModelProto) -> None:
    proto.ir_version = 99


@model_case("an operator set to come", "uses operator set 999")
def later_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 999


@model_case("no operator set", "imports no version of the standard operator set")
def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("somebody", 1))


@model_case("less data than dims", "tensor 'w'")
def too_little_data(proto: onnx.ModelProto) -> None:
    weight(proto).raw_data = weight(proto).raw_data[:-4]


@model_case("dims of a petabyte", "tensor 'w'")
def petabyte(proto: onnx.ModelProto) -> None:
    weight(proto).dims[0] = 10**12


@model_case("negative dims", "tensor 'w'")
def negative_dims(proto: onnx.ModelProto) -> None:
    weight(proto).dims[0] = -2


@model_case("a name that is made twice", "not a valid ONNX model")
def made_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["c"], ["active"]))


@model_case("a circle", "not a valid ONNX model")
def circle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "active"


@model_case("a node of nothing", "not a valid ONNX model")
def of_nothing(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "nowhere"


@model_case("an operator of another domain", "operators of standard ONNX only")
def other_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].domain = "somebody"
    proto.opset_import.append(helper.make_opsetid("somebody", 1))


@model_case("no activation", "no activation takes a bound", status=3)
def no_activation(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Identity"


@model_case("two inputs", "the model has 2 inputs (image, other)")
def two_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("other", 1, ["N", 4]))


@model_case("an input of strings", "input 'image' is STRING")
def strings(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    proto.graph.node[0].input[0] = "numbers"
    proto.graph.node.insert(0, helper.make_node("Cast", ["image"], ["numbers"], to=1))


@model_case("no batch axis", "input 'image' has no batch axis")
def no_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", 1, [64]))
    proto.graph.node[0].input[0] = "whole"
    shape = numpy_helper.from_array(np.array([1, 1, 8, 8]), "whole_shape")
    proto.graph.initializer.append(shape)
    proto.graph.node.insert(0, helper.make_node("Reshape", ["image", "whole_shape"], ["whole"]))


@model_case("a sparse weight", "is sparse, which is not supported; store it dense")
def sparse(proto: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


@model_case("a file that ONNX Runtime optimized", "before ONNX Runtime optimized it", torch=True)
def optimized(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "FusedConv", "com.microsoft"
    proto.graph.node[0].attribute.append(helper.make_attribute("activation", "Relu"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@model_case("quantized", "is quantized (QuantizeLinear")
def quantized(proto: onnx.ModelProto) -> None:
    for name, value in (("scale", np.float32(0.01)), ("zero", np.uint8(0))):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    proto.graph.node[0].input[0] = "d"
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]))
    proto.graph.node.insert(
        0, helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"])
    )


@hostile("subgraphs a thousand deep", "model.onnx: ")
def deep(folder: Path) -> None:
    proto = onnx.load(folder / "model.onnx")
    inner = proto.graph.SerializeToString()
    for _ in range(1000):  # NodeProto.attribute = 5, AttributeProto.g = 6, GraphProto.node = 1
        inner = _field(1, _field(5, _field(6, inner)))
    (folder / "model.onnx").write_bytes(b"\x08\x08" + _field(7, inner))


def _field(number: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


@hostile("a name that is not text", "model.onnx: ")
def not_text(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content.replace(b"active", b"\xff\xfe\xffive"))


# External data.


def external(change: Callable[[Path, TensorProto], None], **entries: str) -> Callable[[Path], None]:
    """The weight ``w`` in a file of its own, described by ``entries``."""

    def prepare(folder: Path) -> None:
        proto = onnx.load(folder / "model.onnx")
        tensor = weight(proto)
        (folder / "w.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", **entries}.items():
            tensor.external_data.add(key=key, value=value)
        change(folder, tensor)
        (folder / "model.onnx").write_bytes(proto.SerializeToString())

    return prepare


def untouched(folder: Path, tensor: TensorProto) -> None:
    pass


def linked(folder: Path, tensor: TensorProto) -> None:
    (folder / "w.bin").rename(folder / "real.bin")
    (folder / "w.bin").symlink_to("real.bin")


def hard_linked(folder: Path, tensor: TensorProto) -> None:
    os.link(folder / "w.bin", folder / "other.bin")


def gone(folder: Path, tensor: TensorProto) -> None:
    (folder / "w.bin").unlink()


def a_device(folder: Path, tensor: TensorProto) -> None:
    (folder / "w.bin").unlink()
    os.mkfifo(folder / "w.bin")


for _name, _message, _change, _entries in (
    ("with keys of ours", "that no file may have", untouched, {"mmbm_onnx.folder": "/etc"}),
    ("said to be checked", "that no file may have", untouched, {"mmbm_onnx.state": "1:2:3:4"}),
    ("above", "leaves the model's directory", untouched, {"location": "../w.bin"}),
    ("at an absolute path", "has an absolute path", untouched, {"location": "/etc/passwd"}),
    ("at a Windows path", "has an absolute path", untouched, {"location": "C:\\w.bin"}),
    ("behind a symbolic link", "is behind the symbolic link", linked, {}),
    ("behind a hard link", "is a hard link", hard_linked, {}),
    ("that is missing", "is missing", gone, {}),
    ("in a pipe", "is not a regular file", a_device, {}),
    ("of a petabyte", "has 1000000000000000 bytes", untouched, {"length": str(10**15)}),
    ("of negative length", "negative offset or length", untouched, {"length": "-1"}),
    ("past the end of its file", "reaches past the end", untouched, {"offset": "999999"}),
    ("at an offset of letters", "that is not a number", untouched, {"offset": "abc"}),
    ("without a location", "names no file", untouched, {"location": ""}),
):
    hostile(f"external data {_name}", _message)(external(_change, **_entries))


# Clean sets.


def clean(folder: Path, **arrays: np.ndarray) -> None:
    np.savez(folder / "clean.npz", **arrays)


def clean_case(name: str, message: str, **arrays: np.ndarray) -> None:
    hostile(name, message)(lambda folder: clean(folder, **arrays))


def with_nan() -> np.ndarray:
    x = X[:, None].astype(np.float32) / 255
    x[7, 0, 3, 3] = np.nan
    return x


hostile("no clean set", "Path 'nowhere' does not exist.", "--clean-dir", "nowhere")(lambda _: None)
clean_case("one class", "clean.npz: all samples are of one class (0)", x=X[Y == 0], y=Y[Y == 0])
clean_case("too few samples", "clean.npz: 12 samples are too few", x=X[:12], y=Y[:12])
clean_case("no samples", "clean.npz: ", x=X[:0], y=Y[:0])
clean_case("samples that are NaN", "sample 7 has values that are not finite", x=with_nan(), y=Y)
clean_case("labels in another order", "labels are in another order than the", x=X, y=(Y + 1) % 4)
clean_case("labels outside", "label 4 of sample 3 is outside the model's classes", x=X, y=Y + 1)
clean_case("labels of fractions", "expected integer class indices", x=X, y=Y + 0.5)
clean_case("fewer labels than samples", "shape (239,) beside x", x=X, y=Y[1:])
clean_case("no labels beside others", "no member 'y' with the true labels", x=X, labels=Y)
clean_case("the same sample over and over", "samples are the same", x=X[:1].repeat(99, 0), y=Y[:99])
clean_case("complex samples", "dtype complex128; expected float", x=X + 1j, y=Y)
clean_case("samples of another shape", "the model takes (n, 1, 8, 8)", x=X / 255.0, y=Y)
clean_case("objects", "clean.npz: 'x'", x=np.array([{}, []], dtype=object), y=np.zeros(2, np.int64))


@hostile("an archive cut in half", "clean.npz: not a .npz archive")
def half_an_archive(folder: Path) -> None:
    content = (folder / "clean.npz").read_bytes()
    (folder / "clean.npz").write_bytes(content[: len(content) // 2])


@hostile("an archive that is text", "clean.npz: not a .npz archive")
def text_archive(folder: Path) -> None:
    (folder / "clean.npz").write_text("x,y\n1,2\n")


def member(folder: Path, shape: str, data: bytes, **options: int) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(folder / "clean.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", start + data)
        buffer = io.BytesIO()
        np.save(buffer, Y)
        archive.writestr("y.npy", buffer.getvalue())


@hostile("an array of a terabyte, by its header", "clean.npz: 'x'")
def terabyte(folder: Path) -> None:
    member(folder, "(240, 1, 100000, 100000)", bytes(64))


@hostile("a zip bomb", "clean.npz: ")
def zip_bomb(folder: Path) -> None:
    """Claims to unpack to nine gigabytes of zeros from nine megabytes."""
    size = 9 * 2**30
    member(folder, "(240, 1, 8, 8)", bytes(240 * 64))
    content = bytearray((folder / "clean.npz").read_bytes())
    place = content.index(b"PK\x01\x02")  # the first entry of the directory
    content[place + 24 : place + 28] = struct.pack("<I", size % 2**32)
    first = content.index(b"PK\x03\x04")
    content[first + 22 : first + 26] = struct.pack("<I", size % 2**32)
    (folder / "clean.npz").write_bytes(bytes(content))


@hostile("a member that is there twice", "member 'x.npy' is there 2 times")
def twice(folder: Path) -> None:
    with zipfile.ZipFile(folder / "clean.npz", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", b"")


@hostile("an empty directory", "data: neither images, in folders per class, nor one .npz", *DATA)
def no_samples(folder: Path) -> None:
    (folder / "data").mkdir()


@hostile("another number of folders", "data: 3 class folders for a model of 4 classes", *DATA)
def three_folders(folder: Path) -> None:
    for name in ("ant", "bee", "cat"):
        (folder / "data" / name).mkdir(parents=True)


@hostile("two archives", "holds 2 .npz files", *DATA)
def two_archives(folder: Path) -> None:
    (folder / "data").mkdir()
    for name in ("a", "b"):
        np.savez(folder / "data" / f"{name}.npz", x=X, y=Y)


def images(folder: Path, bad: bytes, name: str = "0.png") -> None:
    """Four folders of images, one of them spoiled."""
    for label in range(4):
        (folder / "data" / str(label)).mkdir(parents=True)
        for index, pixels in enumerate(X[label == Y][:20]):
            Image.fromarray(pixels).save(folder / "data" / str(label) / f"{index}.png")
    (folder / "data" / "2" / name).write_bytes(bad)


def png_of(width: int, height: int) -> bytes:
    """A grey PNG that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


hostile("an image cut in half", "data/2/0.png", *DATA)(
    lambda folder: images(folder, picture((64, 64))[:60])
)
hostile("an image that is text", "data/2/0.png", *DATA)(lambda folder: images(folder, b"no image"))
hostile("an empty image", "data/2/0.png", *DATA)(lambda folder: images(folder, b""))
hostile("an image of ten gigapixels", "data/2/0.png", *DATA)(
    lambda folder: images(folder, png_of(100_000, 100_000))
)
hostile("an image without pixels", "data/2/0.png", *DATA)(
    lambda folder: images(folder, png_of(0, 8))
)


# Preprocessing files.


def configured(name: str, message: str, content: bytes) -> None:
    def prepare(folder: Path) -> None:
        (folder / "pre.json").write_bytes(content)

    hostile(f"a preprocessing file {name}", message, *CLEAN, "--preprocess", "pre.json")(prepare)


configured("that is no JSON", "pre.json", b"scale = 1")
configured("that is empty", "pre.json", b"")
configured("that is binary", "pre.json", bytes(range(256)))
configured("a hundred thousand lists deep", "pre.json", b"[" * 100_000)
configured("with an unknown key", "unknown key 'colour'", b'{"colour": "red"}')
configured("with a key twice", "a key is given twice", b'{"scale": 1, "scale": 2}')
configured("with infinity", "finite number", b'{"scale": Infinity}')
configured("with a number of a million digits", "pre.json", b'{"scale": ' + b"9" * 10**6 + b"}")
configured("with a resize to the moon", "exceeds", json.dumps({"resize": [10**6] * 2}).encode())


# Models of tokens, and of loops.


def token_model(kind: str = "int64", vocabulary: int = 20) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        text ({kind}[N, 6] tokens) => (float[N, 4] logits)
        <float[4, 4] last = {{1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}}>
        {{
            indices = Cast <to = 7> (tokens)
            words = Gather (table, indices)
            mean = ReduceMean <axes = [1], keepdims = 0> (words)
            active = Relu (mean)
            logits = MatMul (active, last)
        }}
        """
    )
    table = np.random.default_rng(0).standard_normal((vocabulary, 4)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(table, "table"))
    return proto


def tokens_case(name: str, message: str, x: np.ndarray, kind: str = "int64", *args: str):
    def prepare(folder: Path) -> None:
        onnx.save(token_model(kind), folder / "model.onnx")
        clean(folder, x=x)

    hostile(f"tokens {name}", message, *args)(prepare)


def some_tokens(rows: int = 40, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 20, (rows, columns))


def with_one(value: int) -> np.ndarray:
    tokens = some_tokens()
    tokens[7, 3] = value
    return tokens


tokens_case("beyond the table", "idx=20 must be within the inclusive range [-20,19]", with_one(20))
tokens_case("far beyond the table", "idx=4611686018427387904 must be within", with_one(2**62))
tokens_case(
    "before the table", "idx=-21 must be within the inclusive range [-20,19]", with_one(-21)
)
tokens_case("that overflow", "overflow the model's int32", with_one(2**40), "int32")
tokens_case("that are fractions", "dtype float64; expected int64", some_tokens() + 0.5)
tokens_case("of another length", "shape (40, 5), the model takes (n, 6)", some_tokens(columns=5))
tokens_case("along the wrong axis", "shape (6, 40), the model takes (n, 6)", some_tokens().T)
tokens_case("without any", "clean.npz: no samples", some_tokens(rows=0))
tokens_case("that are strings", "dtype <U2 is not a plain number", some_tokens().astype("U2"))
tokens_case(
    "for a model of booleans",
    "is BOOL; only floating-point inputs, integers",
    some_tokens() > 9,
    "bool",
)
tokens_case(
    "for a model of 16-bit pixels",
    "is UINT16; only floating-point inputs, integers",
    some_tokens(),
    "uint16",
)


def loop_case(name: str, message: str, body: str, rounds: int) -> None:
    def prepare(folder: Path) -> None:
        proto = onnx.parser.parse_model(
            f"""
            <ir_version: 8, opset_import: ["" : 17]>
            loops (float[N, 1, 8, 8] image) => (float[N, 4] logits)
            <int64 rounds = {{{rounds}}}, bool go = {{1}}, float[1, 1, 1, 1] zero = {{0}}>
            {{
                {body}
                flat = Flatten (summed)
                hidden = MatMul (flat, w)
                active = Relu (hidden)
                logits = MatMul (active, last)
            }}
            """
        )
        rng = np.random.default_rng(0)
        for weight_name, shape in (("w", (64, 8)), ("last", (8, 4))):
            array = rng.standard_normal(shape).astype(np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(array, weight_name))
        onnx.save(proto, folder / "model.onnx")

    hostile(f"a loop {name}", message, torch=True)(prepare)


_ROUND = """summed = Loop (rounds, go, image) <body = body (int64 i, bool on, float[N, 1, 8, 8] v)
    => (bool further, float[N, 1, 8, 8] u) { further = Identity (on) u = Add (v, zero) }>"""
loop_case("of too many rounds", "loops run more than 10000 rounds in all", _ROUND, 20000)
