"""ONNX Runtime: sessions, providers, batched runs. No torch."""

from mmbm_onnx.runtime.batches import run_batches
from mmbm_onnx.runtime.providers import load_onnxruntime, resolve_provider
from mmbm_onnx.runtime.sessions import Session

__all__ = ["Session", "load_onnxruntime", "resolve_provider", "run_batches"]
