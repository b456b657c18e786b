"""Every kind of graph that the product writes, of one victim."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

import mmbm_onnx
from benchmarks.portability.networks import Victim

# What is asked of ``harden`` for a kind of graph, and which of its two graphs that is.
_ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "hardened": ("hardened", {}),
    "hardened-min": ("hardened", {"fold": "never"}),
    "detector": ("detector", {"cascade": "always"}),
    "detector-one-stage": ("detector", {"cascade": "never"}),
    "detector-float": ("detector", {"cascade": "always", "shadow": "float"}),
    "detector-float-one-stage": ("detector", {"cascade": "never", "shadow": "float"}),
    "detector-int8": ("detector", {"cascade": "always", "shadow": "int8"}),
    "detector-int8-one-stage": ("detector", {"cascade": "never", "shadow": "int8"}),
}
ORIGINAL = "original"
GRAPHS = (ORIGINAL, *_ASKED)


def written(
    victim: Victim, folder: Path, epochs: int, kinds: Iterable[str] = GRAPHS
) -> tuple[dict[str, Path], dict[str, str]]:
    """The graphs as files, and for those that there are not, what ``harden`` said."""
    made, refused = {ORIGINAL: folder / f"{ORIGINAL}.onnx"}, {}
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(victim.proto, made[ORIGINAL])
    for kind in kinds:
        if kind == ORIGINAL:
            continue
        role, options = _ASKED[kind]
        try:
            result = mmbm_onnx.harden(
                made[ORIGINAL],
                victim.clean,
                epochs=epochs,
                max_accuracy_drop=1,
                detector=role == "detector",
                threads=1,
                **options,
            )
        except mmbm_onnx.MmbmError as error:
            refused[kind] = str(error).splitlines()[0]
            continue
        made[kind] = folder / f"{kind}.onnx"
        if role == "detector":
            result.save(folder / "unused.onnx", detector_output=made[kind], force=True)
        else:
            result.save(made[kind], force=True)
    return made, refused
