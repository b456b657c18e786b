"""One hardening, whose seconds of learning and peak memory are printed as JSON.

python -m benchmarks.learning.measured < request.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import mmbm_onnx
from benchmarks.defence import networks
from benchmarks.latency.networks import blots
from mmbm_onnx.api.sources import export_module
from mmbm_onnx.evaluation.memory import memory_of_this_process

_SIDE = 64
_CLEAN = 500


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    given = {"victim": _victim, "random": _random}[request["kind"]](request)
    result = mmbm_onnx.harden(
        *given,
        method=request.get("method", "mmac-universal"),
        epochs=request.get("epochs"),
        detector=False,
        threads=1,
    )
    seconds = result.report["seconds"]["learn"]
    print(json.dumps({"seconds": seconds, "peak": memory_of_this_process("VmHWM")}))


def _victim(request: dict[str, Any]) -> tuple[Path, tuple[np.ndarray, np.ndarray]]:
    folder = Path(request["folder"])
    with np.load(folder / "samples.npz") as file:
        x, y = file["clean_x"][:_CLEAN], file["clean_y"][:_CLEAN]
    return folder / "model.onnx", (x.astype(np.float32) / 255, y)


def _random(request: dict[str, Any]) -> tuple[onnx.ModelProto, tuple[np.ndarray, None]]:
    """The benchmark's residual network with random weights, and pictures of blurred blots."""
    network = networks.build("residual", 3, request["classes"], 0)
    x = torch.from_numpy(blots(request["samples"], (3, _SIDE, _SIDE), 0))
    with torch.no_grad():
        network.train()(x[:100])  # statistics of BatchNorm
    return export_module(network, x[:2]).proto, (x.numpy(), None)


if __name__ == "__main__":
    main()
