"""``inspect``: what of a model can be bounded."""

from __future__ import annotations

from mmbm_onnx.api.sources import ModelSource, load_model
from mmbm_onnx.report.inspection import Inspection, inspect_model


def inspect(
    model: ModelSource, *, input_name: str | None = None, logits_name: str | None = None
) -> Inspection:
    """List the activations of a model that take a bound, and the others with the reason.

    Args:
        model: A path to an ONNX file or a directory with one, or an ``onnx.ModelProto``.
        input_name: Graph input that carries samples, when there are several.
        logits_name: Tensor that holds the logits, when it cannot be found.

    Raises:
        ModelError: The model cannot be read or is not a classifier.
        OptionError: A name does not exist.
    """
    return inspect_model(load_model(model), input_name=input_name, logits_name=logits_name)
