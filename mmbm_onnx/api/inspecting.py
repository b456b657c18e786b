"""``inspect``: what of a model can be bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmbm_onnx.api.arguments import texts
from mmbm_onnx.api.sources import ModelSource, load_model
from mmbm_onnx.report.inspection import Inspection, inspect_model

if TYPE_CHECKING:
    import torch


def inspect(
    model: ModelSource,
    *,
    input_name: str | None = None,
    logits_name: str | None = None,
    example_input: torch.Tensor | None = None,
) -> Inspection:
    """List the activations of a model that take a bound, and the others with the reason.

    Args:
        model: A path to an ONNX file or a directory with one, an ``onnx.ModelProto``, or a
            ``torch.nn.Module``, which is exported first and needs ``example_input``.
        input_name: Graph input that carries samples, when there are several.
        logits_name: Tensor that holds the logits, when it cannot be found.
        example_input: A batch of inputs, for exporting a torch module.

    Raises:
        ModelError: The model cannot be read or is not a classifier.
        OptionError: A name does not exist, or a module comes without an example.
    """
    texts(input_name=input_name, logits_name=logits_name)
    loaded = load_model(model, example_input)
    return inspect_model(loaded, input_name=input_name, logits_name=logits_name)
