"""Gates on a written graph that need no samples: validity, signature, provenance, bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from mmbm_onnx.evaluation.compare import bounds_in, signature_differences
from mmbm_onnx.evaluation.gates import Gate, holds
from mmbm_onnx.evaluation.sameness import changed_node, changed_weight
from mmbm_onnx.evaluation.unfolding import Unfolded
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.provenance import PREFIX, read_provenance
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.validity import objection

ORIGINAL_SHA256 = "original_sha256"
"""Provenance key: SHA-256 of the original, as ``OnnxModel.sha256``."""
BOUNDS = "bounds"
"""Provenance key: number of sites that carry a bound, in decimal."""


def structure_gates(
    role: str,
    original: OnnxModel,
    written: OnnxModel,
    *,
    unfolded: Unfolded | None = None,
    appended: Sequence[str] = (),
) -> tuple[list[Gate], int]:
    """Judge ``written`` as a graph made from ``original``.

    Args:
        role: ``"hardened"`` or ``"detector"``; begins the gates' names.
        original: The model that was hardened.
        written: The graph made from it.
        unfolded: Of the hardened graph: with its bounds as they were before they were folded.
        appended: Outputs that must follow the original's.

    Returns:
        The gates ``<role>_valid``, ``_signature``, ``_provenance``, ``_unchanged`` and, for the
        hardened graph, ``_bounds``; and the number of bounds found (0 for a detector, whose sites
        keep their original values).
    """
    inlined, _ = inline_activation_functions(original.proto)
    gates = [
        _valid(role, written),
        _signature(role, original, written, appended),
        _provenance(role, original, written),
        _unchanged(role, inlined, unfolded or Unfolded(written.proto)),
    ]
    if role != "hardened":
        return gates, 0
    gate, count = _bounds(role, inlined, unfolded or Unfolded(written.proto))
    return [*gates, gate], count


def _valid(role: str, written: OnnxModel) -> Gate:
    if text := objection(written.proto):
        return holds(f"{role}_valid", False, f"onnx.checker: {text[:300]}")
    return holds(f"{role}_valid", True, "onnx.checker with strict shape inference")


def _signature(role: str, original: OnnxModel, written: OnnxModel, appended: Sequence[str]) -> Gate:
    found = signature_differences(original.proto, written.proto, appended=appended)
    message = "; ".join(found) or "inputs, outputs, operator sets and IR version as the original's"
    return holds(f"{role}_signature", not found, message)


def _provenance(role: str, original: OnnxModel, written: OnnxModel) -> Gate:
    name = f"{role}_provenance"
    stated = read_provenance(written.proto).get(ORIGINAL_SHA256)
    if stated is None:
        message = f"metadata has no {PREFIX}{ORIGINAL_SHA256}; not written by mmbm-onnx"
        if read_provenance(original.proto):
            message += ", but the original is: are the two swapped?"
        return holds(name, False, message)
    if stated != original.sha256:
        message = f"was made from the model {stated[:12]}..., not from {original.sha256[:12]}..."
        return holds(name, False, message)
    return holds(name, True, f"made from the original {stated[:12]}...")


def _unchanged(role: str, inlined: onnx.ModelProto, written: Unfolded) -> Gate:
    if written.difference:
        return holds(f"{role}_unchanged", False, written.difference)
    found = changed_weight(inlined, written.proto)
    what = "weights"
    if role == "hardened":
        sites = frozenset(site.tensor for site in find_sites(inlined).sites)
        found = found or changed_node(inlined, written.proto, sites)
        what = "weights and nodes, bounds aside,"
        if written.folded:
            what = "weights and nodes, bounds folded into them aside,"
    return holds(f"{role}_unchanged", not found, found or f"{what} are the original's")


def _bounds(role: str, inlined: onnx.ModelProto, written: Unfolded) -> tuple[Gate, int]:
    name = f"{role}_bounds"
    found = bounds_in(inlined, written.proto)
    count = len(found)
    bad = [
        tensor
        for tensor, bound in found.items()
        if bound is not None
        and not (np.isfinite(values := bound.astype(np.float64)).all() and (values > 0).all())
    ]
    if bad:
        return holds(name, False, f"bounds of {bad[0]!r} are not all finite and positive"), count
    if count == 0:
        return holds(name, False, "no activation is bounded"), count
    stated = read_provenance(written.proto).get(BOUNDS)
    if stated is not None:
        # A ReLU6 whose own limit was kept looks untouched.
        kept = sum(
            site.upper is not None and site.tensor not in found
            for site in find_sites(inlined).sites
        )
        if not (stated.isdecimal() and count <= int(stated) <= count + kept):
            return holds(name, False, f"{count} bounds found, its metadata says {stated}"), count
    return holds(name, True, f"{count} activations bounded"), count
