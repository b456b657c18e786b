"""ONNX's full check, strict shape inference included."""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.mapped import without_weights


def objection(proto: onnx.ModelProto) -> str:
    """What the full check has against a model, in one line; nothing where it has nothing.

    Args:
        proto: The model, weights inside or mapped (``graph.mapped``); not changed.
    """
    try:
        onnx.checker.check_model(without_weights(proto), full_check=True)
    except Exception as error:  # checker and shape inference raise many kinds
        return " ".join(str(error).split()) or type(error).__name__
    return ""
