"""Other runtimes, each behind the same two functions."""

from __future__ import annotations

from pathlib import Path

from benchmarks.portability.runtimes.base import Batches, Missing, Runtime
from benchmarks.portability.runtimes.node import Node
from benchmarks.portability.runtimes.python import OnnxRuntime, OpenVino, Reference

REFERENCE = "onnxruntime"  # what the others are compared with

__all__ = ["REFERENCE", "Batches", "Missing", "Runtime", "runtimes"]


def runtimes(node: Path) -> dict[str, Runtime]:
    """All of them; ``node`` is the folder that holds their ``node_modules``."""
    return {
        REFERENCE: OnnxRuntime("CPUExecutionProvider"),
        "onnxruntime-cuda": OnnxRuntime("CUDAExecutionProvider"),
        "openvino": OpenVino(),
        "onnxruntime-node": Node("onnxruntime-node", node),
        "onnxruntime-web": Node("onnxruntime-web", node),
        "onnx.reference": Reference(),
    }
