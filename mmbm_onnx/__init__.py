"""Hardens backdoored ONNX classifiers with learned activation bounds.

    from mmbm_onnx import harden, verify, inspect

Names are loaded when first used: importing the package imports neither torch nor ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmbm_onnx.api.benching import bench
    from mmbm_onnx.api.hardening import harden
    from mmbm_onnx.api.inspecting import inspect
    from mmbm_onnx.api.scanning import scan
    from mmbm_onnx.api.verifying import save_verification, verify
    from mmbm_onnx.data import Preprocessing
    from mmbm_onnx.errors import MmbmError
    from mmbm_onnx.evaluation.bench import BenchResult
    from mmbm_onnx.evaluation.verification import VerifyResult
    from mmbm_onnx.pipeline.result import HardenResult
    from mmbm_onnx.pipeline.scan_result import ScanResult
    from mmbm_onnx.report.inspection import Inspection
    from mmbm_onnx.types import Bounds, Progress, Samples, Site

_HOMES = {
    "BenchResult": "mmbm_onnx.evaluation.bench",
    "Bounds": "mmbm_onnx.types",
    "HardenResult": "mmbm_onnx.pipeline.result",
    "Inspection": "mmbm_onnx.report.inspection",
    "MmbmError": "mmbm_onnx.errors",
    "Preprocessing": "mmbm_onnx.data",
    "Progress": "mmbm_onnx.types",
    "Samples": "mmbm_onnx.types",
    "ScanResult": "mmbm_onnx.pipeline.scan_result",
    "Site": "mmbm_onnx.types",
    "VerifyResult": "mmbm_onnx.evaluation.verification",
    "bench": "mmbm_onnx.api.benching",
    "harden": "mmbm_onnx.api.hardening",
    "inspect": "mmbm_onnx.api.inspecting",
    "save_verification": "mmbm_onnx.api.verifying",
    "scan": "mmbm_onnx.api.scanning",
    "verify": "mmbm_onnx.api.verifying",
}

__all__ = [
    "BenchResult",
    "Bounds",
    "HardenResult",
    "Inspection",
    "MmbmError",
    "Preprocessing",
    "Progress",
    "Samples",
    "ScanResult",
    "Site",
    "VerifyResult",
    "__version__",
    "bench",
    "harden",
    "inspect",
    "save_verification",
    "scan",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
