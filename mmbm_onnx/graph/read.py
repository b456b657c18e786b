"""Reading a model file, trusting nothing in it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.content import check_tensor_sizes, check_text
from mmbm_onnx.graph.external import external_bytes, external_files, load_external_data
from mmbm_onnx.graph.mapped import file_state, mapped, without_weights
from mmbm_onnx.graph.walk import STANDARD_DOMAINS, all_graphs, shape_of, standard_opset, tensors

LIMIT = 2**31 - 1  # bytes: the most a protobuf message may hold
MAP_ABOVE = 2**30  # bytes of a model from which on its external weights stay in their files
_LFS = b"version https://git-lfs.github.com/"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model that was read and checked.

    Attributes:
        proto: The model, external data loaded into it; of a model above 1 GiB large weights stay
            in their files (see ``graph.mapped``). Treat as read-only.
        sha256: SHA-256 (hex) of the file's bytes, followed by those of its external data files in
            order of their names; of the deterministic serialisation when there is no file.
        path: The file it came from, or None.
    """

    proto: onnx.ModelProto
    sha256: str
    path: Path | None

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else (self.proto.graph.name or "model")


def read_model(path: str | Path) -> OnnxModel:
    """Read an ONNX file, or a directory that holds exactly one, with its external data.

    Sizes are checked before anything is read, so a model never takes more memory than a few times
    the 2 GiB that a protobuf message may hold, or than its weights take of their own.

    Args:
        path: ``model.onnx``, or a directory with one ``*.onnx`` in it.

    Raises:
        ModelError: The file is missing, empty, not ONNX, damaged, invalid by ``onnx.checker``,
            newer than the installed onnx, its external data is not plain files in its own
            directory, or without large weights in such files it is larger than 2 GiB, or with
            them larger than the memory of this machine.
    """
    file, data, proto = _parse(path)
    digest = hashlib.sha256(data)
    size = len(data)
    del data
    outside = external_files(proto, file)
    large = size + external_bytes(proto, file) > MAP_ABOVE
    if size + external_bytes(proto, file, map_weights=large) > LIMIT:
        raise _too_large(file)
    if large:
        _check_memory(size + sum(part.stat().st_size for part in outside), file)
    before = [file_state(part.lstat()) for part in outside]
    load_external_data(proto, file, map_weights=large)
    for part in outside:
        _hash(part, digest)
    for part, state in zip(outside, before, strict=True):
        if file_state(part.lstat()) != state:
            raise ModelError(f"{part}: the file changed while it was read")
    check_model(proto, file)
    return OnnxModel(proto, digest.hexdigest(), file)


def model_files(path: str | Path) -> tuple[Path, ...]:
    """The files a model consists of: its own and those of its external data, which stay unread.

    Raises:
        ModelError: As ``read_model``, short of what only the weights tell.
    """
    file, _, proto = _parse(path)
    return (file, *external_files(proto, file))


def is_large(path: str | Path) -> bool:
    """Whether ``read_model`` leaves weights of a model in their files.

    Raises:
        ModelError: As ``model_files``.
    """
    file, data, proto = _parse(path)
    outside = external_bytes(proto, file)
    return len(data) + outside > MAP_ABOVE and outside > external_bytes(
        proto, file, map_weights=True
    )


def from_proto(proto: onnx.ModelProto) -> OnnxModel:
    """A checked model from a proto in memory, which is copied, never changed.

    Raises:
        ModelError: As ``read_model``; also when it refers to external data, which has no
            directory to be looked up in.
    """
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors(proto)):
        raise ModelError(
            "model refers to external data; load it (onnx.load), or pass the path of its file"
        )
    if proto.ByteSize() > LIMIT:
        raise _too_large("model")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    check_model(copy, "model")
    digest = hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()
    return OnnxModel(copy, digest, None)


def check_model(proto: onnx.ModelProto, label: Path | str) -> None:
    """Check a loaded model beyond what loading checks.

    Raises:
        ModelError: ``onnx.checker`` objects, a tensor's data has the wrong size or is sparse, a
            name is not text, the model is newer than the installed onnx, or no standard operator
            set is imported.
    """
    check_text(proto, label)
    _check_versions(proto, label)
    _check_dense(proto, label)
    check_tensor_sizes(proto, label)
    if proto.ByteSize() > LIMIT:
        raise _too_large(label)
    _check_mapped(proto, label)
    try:
        onnx.checker.check_model(without_weights(proto))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{label}: not a valid ONNX model ({_line(error)})") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{label}: cannot be checked ({_line(error)})") from None


def _check_mapped(proto: onnx.ModelProto, label: Path | str) -> None:
    """What the checker, which does not see mapped weights, asks of the others."""
    large = {tensor.name: tensor for tensor in mapped(proto)}
    names = [tensor.name for tensor in proto.graph.initializer if tensor.name in large]
    if len(names) > len(large):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{label}: not a valid ONNX model ({twice!r} is not a unique initializer)")
    for info in (*proto.graph.input, *proto.graph.value_info):
        tensor = large.get(info.name)
        if tensor is None:
            continue
        kind, shape = info.type.tensor_type, shape_of(info.type)
        fits = shape is None or (
            len(shape) == len(tensor.dims)
            and all(length in (None, dim) for length, dim in zip(shape, tensor.dims, strict=True))
        )
        if kind.elem_type not in (0, tensor.data_type) or not fits:
            raise ModelError(
                f"{label}: initializer {info.name!r} is declared with another type or shape"
            )


def _check_versions(proto: onnx.ModelProto, label: Path | str) -> None:
    known = f"the installed onnx {onnx.__version__} knows"
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{label}: has IR version {proto.ir_version}, {known} up to {onnx.IR_VERSION}; "
            "upgrade onnx"
        )
    standard = {entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS}
    if len(standard) > 1:
        raise ModelError(f"{label}: the model imports several versions of the standard operators")
    opset = standard_opset(proto.opset_import)
    if opset is None:
        raise ModelError(f"{label}: the model imports no version of the standard operator set")
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"{label}: uses operator set {opset}, {known} up to {newest}; upgrade onnx"
        )


def _check_dense(proto: onnx.ModelProto, label: Path | str) -> None:
    for graph in all_graphs(proto):
        names = [sparse.values.name for sparse in graph.sparse_initializer]
        for node in graph.node:
            for entry in node.attribute:
                if entry.HasField("sparse_tensor") or entry.sparse_tensors:
                    names.append(node.output[0] if node.output else node.name)
        if names:
            raise ModelError(
                f"{label}: tensor {names[0]!r} is sparse, which is not supported; store it dense"
            )


def _parse(path: str | Path) -> tuple[Path, bytes, onnx.ModelProto]:
    """The model's own file, its bytes, and what they say; external data is left where it is."""
    try:
        file = _resolve(Path(path))
        if file.stat().st_size > LIMIT:
            raise _too_large(file)
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ModelError(f"{path}: cannot be read ({reason})") from None
    if not data:
        raise ModelError(f"{file}: the file is empty, not an ONNX model")
    if data.startswith(_LFS):
        raise ModelError(f"{file}: a Git LFS pointer, not the model itself; run git lfs pull")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{file}: not an ONNX model, or a truncated one{_other_format(data)}"
        ) from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(
            f"{file}: not an ONNX model (it declares no IR version or graph){_other_format(data)}"
        )
    return file, data, proto


def _other_format(data: bytes) -> str:
    """What a file is instead, by its first bytes, and the way to ONNX; else nothing."""
    zipped = data.startswith(b"PK") and b"data.pkl" in data[:4096]
    if zipped or data[:2] in (b"\x80\x02", b"\x80\x04"):  # a pickle
        return "; it looks like a PyTorch checkpoint: export the model with torch.onnx.export"
    if data.startswith(b"\x89HDF"):
        return "; it looks like a Keras model: convert it with tf2onnx"
    if data[4:8] == b"TFL3":
        return "; it looks like a TensorFlow Lite model: convert it with tf2onnx"
    if data[4:8] == b"ORTM":
        return "; it is in the ORT format: give the .onnx file that it was made from"
    if data[6:10] == b'\0\0{"':
        return "; it looks like safetensors, weights without a graph: export the model to ONNX"
    return ""


def _resolve(path: Path) -> Path:
    if path.is_dir():
        inside = sorted(file for file in path.glob("*.onnx") if file.is_file())
        if len(inside) != 1:
            found = f"{len(inside)} .onnx files" if inside else "no .onnx file"
            raise ModelError(f"{path}: the directory holds {found}; name the model file itself")
        return inside[0]
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{path}: a symbolic link to a file that does not exist")
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: not a regular file")
    return path


def _hash(file: Path, digest: hashlib._Hash) -> None:
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None


def _check_memory(needed: int, file: Path) -> None:
    """Refuse weights that this machine cannot hold: a sparse file may claim any size."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return
    if needed > memory:
        raise ModelError(
            f"{file}: its weights take {needed / 2**30:.1f} GiB, the memory of this machine is "
            f"{memory / 2**30:.1f} GiB"
        )


def _too_large(label: Path | str) -> ModelError:
    return ModelError(
        f"{label}: a model above 2 GiB must keep the weights of its main graph as external data "
        "beside it (onnx.save with save_as_external_data=True), none of them of 4 bits"
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
