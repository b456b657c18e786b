"""Clean sets: readers, preprocessing, splits, gates. No torch."""

from mmbm_onnx.data.gates import (
    AccuracyCheck,
    check_accuracy,
    check_decided,
    check_samples,
)
from mmbm_onnx.data.preprocessing import Preprocessing
from mmbm_onnx.data.samples import read_samples
from mmbm_onnx.data.split import split

__all__ = [
    "AccuracyCheck",
    "Preprocessing",
    "check_accuracy",
    "check_decided",
    "check_samples",
    "read_samples",
    "split",
]
