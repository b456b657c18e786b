"""Reading a model file, trusting nothing in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from mmbm_onnx.errors import ModelError
from mmbm_onnx.graph.external import check_tensor_sizes, external_files
from mmbm_onnx.graph.walk import standard_opset, tensors

LIMIT = 2**31 - 1  # bytes: the most a protobuf message may hold


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model that was read and checked.

    Attributes:
        proto: The model, external data loaded into it. Treat as read-only.
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

    Args:
        path: ``model.onnx``, or a directory with one ``*.onnx`` in it.

    Raises:
        ModelError: The file is missing, empty, not ONNX, damaged, invalid by ``onnx.checker``,
            larger than 2 GiB, or its external data is not plain files in its own directory.
    """
    file = _resolve(Path(path))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    if not data:
        raise ModelError(f"{file}: the file is empty, not an ONNX model")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{file}: not an ONNX model, or a truncated one") from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{file}: not an ONNX model (it declares no IR version or graph)")

    digest = hashlib.sha256(data)
    del data
    outside = external_files(proto, file)
    if file.stat().st_size + sum(part.stat().st_size for part in outside) > LIMIT:
        raise ModelError(f"{file}: models above 2 GiB are not supported")
    for part in outside:
        with part.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    if outside:
        try:
            onnx.load_external_data_for_model(proto, str(file.parent))
        except Exception as error:  # onnx raises many kinds here
            raise ModelError(f"{file}: external data cannot be read ({_line(error)})") from None
    check_model(proto, file)
    return OnnxModel(proto, digest.hexdigest(), file)


def from_proto(proto: onnx.ModelProto) -> OnnxModel:
    """A checked model from a proto in memory, which is copied, never changed.

    Raises:
        ModelError: As ``read_model``; also when it refers to external data, which has no
            directory to be looked up in.
    """
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors(proto)):
        raise ModelError("model refers to external data; load it (onnx.load) or pass its path")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    check_model(copy, "model")
    digest = hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()
    return OnnxModel(copy, digest, None)


def check_model(proto: onnx.ModelProto, label: Path | str) -> None:
    """Check a loaded model beyond what loading checks.

    Raises:
        ModelError: ``onnx.checker`` objects, a tensor's data has the wrong size, or no standard
            operator set is imported.
    """
    if standard_opset(proto.opset_import) is None:
        raise ModelError(f"{label}: the model imports no version of the standard operator set")
    check_tensor_sizes(proto, label)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{label}: not a valid ONNX model ({_line(error)})") from None
    except ValueError as error:
        raise ModelError(f"{label}: cannot be checked ({_line(error)})") from None


def _resolve(path: Path) -> Path:
    if path.is_dir():
        inside = sorted(path.glob("*.onnx"))
        if len(inside) != 1:
            found = f"{len(inside)} .onnx files" if inside else "no .onnx file"
            raise ModelError(f"{path}: the directory holds {found}; name the model file itself")
        return inside[0]
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: not a regular file")
    return path


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
