"""Runtimes that Python can call."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from onnx.reference import ReferenceEvaluator

from benchmarks.portability.runtimes.base import Batches, Missing, joined


class OnnxRuntime:
    """ONNX Runtime with one execution provider."""

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def version(self) -> str:
        if self._provider not in onnxruntime.get_available_providers():
            raise Missing(f"no {self._provider} here")
        return str(onnxruntime.__version__)

    def run(self, model: Path, batches: Batches) -> dict[str, np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        chosen = list(dict.fromkeys([self._provider, "CPUExecutionProvider"]))
        session = onnxruntime.InferenceSession(model, options, providers=chosen)
        if session.get_providers()[0] != self._provider:
            raise RuntimeError(f"{self._provider} was left for {session.get_providers()[0]}")
        names = [output.name for output in session.get_outputs()]
        fed = session.get_inputs()[0].name
        return joined(names, [session.run(names, {fed: batch}) for batch in batches])


class OpenVino:
    """OpenVINO on the CPU, in float32: by itself it takes bfloat16 where the processor has it."""

    def version(self) -> str:
        try:
            import openvino  # noqa: F401
        except ImportError:
            raise Missing("the package openvino is not installed") from None
        return version("openvino")

    def run(self, model: Path, batches: Batches) -> dict[str, np.ndarray]:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        names = [output.any_name for output in compiled.outputs]
        answers = []
        for batch in batches:
            found = compiled([batch])
            # What it gives is overwritten by the next batch.
            answers.append([np.array(found[output]) for output in compiled.outputs])
        return joined(names, answers)


class Reference:
    """The reference implementation of the ONNX standard."""

    def version(self) -> str:
        return version("onnx")

    def run(self, model: Path, batches: Batches) -> dict[str, np.ndarray]:
        evaluator = ReferenceEvaluator(str(model))
        (fed,) = evaluator.input_names
        answers = [evaluator.run(None, {fed: batch}) for batch in batches]
        return joined(evaluator.output_names, answers)
