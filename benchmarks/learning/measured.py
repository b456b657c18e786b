"""One hardening, whose seconds of learning and peak memory are printed as JSON.

python -m benchmarks.learning.measured < request.json
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import mmbm_onnx
from benchmarks.defence import networks

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
    print(json.dumps({"seconds": seconds, "peak": _peak()}))


def _victim(request: dict[str, Any]) -> tuple[Path, tuple[np.ndarray, np.ndarray]]:
    folder = Path(request["folder"])
    with np.load(folder / "samples.npz") as file:
        x, y = file["clean_x"][:_CLEAN], file["clean_y"][:_CLEAN]
    return folder / "model.onnx", (x.astype(np.float32) / 255, y)


def _random(request: dict[str, Any]) -> tuple[onnx.ModelProto, tuple[np.ndarray, None]]:
    """The benchmark's residual network with random weights, and pictures of blurred blots."""
    network = networks.build("residual", 3, request["classes"], 0)
    coarse = torch.rand(request["samples"], 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, (_SIDE, _SIDE), mode="bilinear")
    with torch.no_grad():
        network.train()(x[:100])  # statistics of BatchNorm
    buffer = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        (x[:2],),
        buffer,
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    return onnx.load_from_string(buffer.getvalue()), (x.numpy(), None)


def _peak() -> int:
    """Bytes: the largest resident set of this process (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the system does not tell the memory of a process")


if __name__ == "__main__":
    main()
