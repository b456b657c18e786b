"""What a caller may hand in, turned into what the rooms take."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.data import Preprocessing, read_samples
from mmbm_onnx.data.integers import as_integers
from mmbm_onnx.errors import DataError, ModelError, OptionError
from mmbm_onnx.graph.read import OnnxModel, from_proto, read_model
from mmbm_onnx.types import Interface, Samples

if TYPE_CHECKING:
    import torch

ModelSource: TypeAlias = "str | Path | onnx.ModelProto | OnnxModel | torch.nn.Module"
Arrays: TypeAlias = "tuple[npt.NDArray[Any], npt.NDArray[Any] | None]"
SampleSource: TypeAlias = "str | Path | Samples | Arrays"


def load_model(source: ModelSource, example: torch.Tensor | None = None) -> OnnxModel:
    """A checked model from a path, a proto, which is copied, or a torch module, which is exported.

    Args:
        source: Any of them.
        example: A batch of inputs, for exporting a torch module.

    Raises:
        ModelError: It cannot be read or exported, or is of another type.
        OptionError: A module comes without an example.
    """
    if is_module(source):
        if example is None:
            raise OptionError("exporting a torch module needs example_input, a batch of inputs")
        return export_module(source, example)
    if isinstance(source, OnnxModel):
        return source
    if isinstance(source, onnx.ModelProto):
        return from_proto(source)
    if isinstance(source, (str, Path)):
        return read_model(source)
    raise ModelError(
        f"a model is a path, an onnx.ModelProto or a torch.nn.Module, not {type(source).__name__}"
    )


def load_samples(
    source: SampleSource,
    interface: Interface,
    preprocessing: Preprocessing | None,
    *,
    triggered: bool = False,
) -> Samples:
    """Samples from a path (image folder or ``.npz``), ``Samples``, or a pair of arrays.

    Args:
        source: Arrays are ``x (n, ...)``, passed to the model as they are, and ``y (n,)`` or None.
        interface: The model's.
        preprocessing: How images become tensors; arrays in memory are not preprocessed.

    Raises:
        DataError: They cannot be read, or have the wrong shape or type.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DataError(f"samples as arrays are a pair (x, y), not {len(source)} arrays")
        x, y = source
        labels = None if y is None else _labels(_array("y", y))
        array = _array("x", x)
        integers = interface.takes_integers
        if array.dtype.kind not in ("iu" if integers else "f") or array.ndim == 0:
            raise DataError(
                f"x is {array.dtype} with shape {array.shape}; arrays in memory must be "
                f"{'integers' if integers else 'floats'}, shape (n, ...), ready to use"
            )
        if integers:
            return Samples(as_integers(array, interface.input_dtype, "x"), labels)
        return Samples(array.astype(interface.input_dtype, copy=False), labels)
    if isinstance(source, (str, Path)):
        return read_samples(Path(source), interface, preprocessing, triggered=triggered)
    raise DataError(f"samples are a path or arrays, not {type(source).__name__}")


def preprocessing_or_none(value: Any) -> None:
    """Refuse what is neither a ``Preprocessing`` nor None.

    Raises:
        OptionError: It is something else.
    """
    if value is not None and not isinstance(value, Preprocessing):
        raise OptionError(f"preprocessing is {value!r}, expected a Preprocessing or None")


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, tensors that need a gradient or lie elsewhere
        text = " ".join(str(error).split())
        raise DataError(f"{name} cannot be made a NumPy array ({text})") from None


def _labels(y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"y is {y.dtype} with shape {y.shape}; labels are integers, shape (n,)")
    return y.astype(np.int64)


def is_module(source: object) -> TypeGuard[torch.nn.Module]:
    """Whether a torch module was handed in; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def export_module(module: torch.nn.Module, example: torch.Tensor) -> OnnxModel:
    """Export a torch module to ONNX with a dynamic batch axis; the module is left as it was.

    Args:
        module: A classifier with one input; exported in eval mode.
        example: An input batch ``(n, ...)``, n at least 2.

    Raises:
        ModelError: It cannot be exported, or ``onnxscript`` is not installed.
    """
    import torch

    if importlib.util.find_spec("onnxscript") is None:
        raise ModelError("exporting a torch module needs onnxscript: pip install mmbm-onnx[export]")
    batch = example if len(example) > 1 else torch.cat([example, example])
    # Each by itself: a frozen part of a module in training is in eval mode and stays so.
    training = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        program = torch.onnx.export(
            module,
            (batch,),
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # the exporter raises many kinds
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"torch.onnx.export cannot export the module ({text})") from error
    finally:
        for part, flag in training:
            part.training = flag
    assert program is not None
    return from_proto(program.model_proto)
