"""The parity gate: torch must compute what ONNX Runtime computes, or learning would be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from mmbm_onnx.errors import ParityError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.expansion import all_nodes
from mmbm_onnx.execution.steps import describe
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.runtime.batches import run_logits
from mmbm_onnx.runtime.sessions import Session

TOLERANCE = 1e-4
# ONNX Runtime rounds to half precision after every node, torch computes in float32.
HALF_TOLERANCE = 2e-2


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely torch follows ONNX Runtime.

    Attributes:
        max_relative_difference: Largest difference of a logit, over the largest logit's size.
        tolerance: What it was held against.
        samples: How many samples were compared.
    """

    max_relative_difference: float
    tolerance: float
    samples: int


def check_parity(
    classifier: Classifier,
    proto: onnx.ModelProto,
    x: npt.NDArray[Any],
    *,
    provider: str | None = None,
    tolerance: float | None = None,
) -> Parity:
    """Compare the classifier's logits, without bounds, with ONNX Runtime's.

    Args:
        classifier: What is checked.
        proto: The model it was made from; not changed.
        x: Samples ``(n, *input shape without batch)`` in the model's input dtype, n > 0.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        tolerance: Largest difference relative to the largest logit. None is 1e-4, or 2e-2 for a
            model with half-precision tensors.

    Raises:
        ParityError: They differ by more, or are not finite in the same places; the message names
            the first tensor that differs, its node, and by how much.
        DataError: ``x`` is empty or of another dtype than the model's input.
        RuntimeMissingError: ONNX Runtime or the provider is not available.
        ModelError: A graph cannot be run.
    """
    if tolerance is None:
        tolerance = HALF_TOLERANCE if has_halves(proto) else TOLERANCE
    interface = classifier.interface
    session = Session(with_outputs(proto, [interface.logits]), provider=provider)
    reference = run_logits(session, interface, x)
    with torch.no_grad():
        ours = classifier.logits(torch.from_numpy(x)).cpu().numpy()
    worst = relative_difference(ours, reference)
    if worst <= tolerance:
        return Parity(worst, tolerance, len(x))
    start, end = _worst_group(ours, reference, interface.batch)
    first = _first_difference(classifier, proto, x[start:end], provider, tolerance)
    where = (
        "no single tensor before them differs that much: the difference builds up gradually, or "
        "only in samples run together"
        if first is None
        else f"tensor {first[0]!r} of {first[2]} is the first that differs, by {first[1]:.2g}"
    )
    raise ParityError(
        f"torch and ONNX Runtime disagree on the logits {interface.logits!r} by {worst:.2g} of the "
        f"largest logit (allowed: {tolerance:.0e}); {where}"
    )


def relative_difference(ours: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Largest absolute difference over the largest size in ``reference``, in float64.

    Infinite where shapes differ, where one is not finite and the other is not the same, and where
    anything differs from a reference of zeros. Booleans count as 0 and 1.
    """
    if ours.shape != reference.shape:
        return float("inf")
    if ours.size == 0:
        return 0.0
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not (finite | (a == b) | (np.isnan(a) & np.isnan(b))).all():
        return float("inf")
    gap = float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))
    scale = float(np.max(np.abs(b[finite]), initial=0.0))
    if gap == 0:
        return 0.0
    return gap / scale if scale > 0 else float("inf")


def _worst_group(
    ours: npt.NDArray[Any], reference: npt.NDArray[Any], batch: int | None
) -> tuple[int, int]:
    """The range of samples that ran together and hold the largest difference."""
    if batch is None:
        return 0, len(ours)
    rows = [relative_difference(a, b) for a, b in zip(ours, reference, strict=True)]
    start = int(np.argmax(rows)) // batch * batch
    return start, start + batch


def _first_difference(
    classifier: Classifier,
    proto: onnx.ModelProto,
    x: npt.NDArray[Any],
    provider: str | None,
    tolerance: float,
) -> tuple[str, float, str] | None:
    """Tensor, difference and node of the first disagreement in the main graph, if there is one."""
    interface = classifier.interface
    if interface.batch is not None:
        x = x[np.minimum(np.arange(interface.batch), len(x) - 1)]  # filled up with its last sample
    produced = _produced(proto.graph, interface.logits)
    names = list(produced)
    # Without optimizations: fused nodes do not compute what lies between them.
    session = Session(with_outputs(proto, names), provider=provider, optimize=False)
    references = session.run(names, {interface.input: np.ascontiguousarray(x)})
    with torch.no_grad():
        batch = torch.from_numpy(x).to(classifier.device, classifier.dtype)
        ours = classifier.executor.run({interface.input: batch}, names)
    for name, reference in zip(names, references, strict=True):
        difference = relative_difference(ours[name].cpu().numpy(), np.asarray(reference))
        if difference > tolerance:
            return name, difference, describe(produced[name])
    return None


def _produced(graph: onnx.GraphProto, last: str) -> dict[str, onnx.NodeProto]:
    """The tensors that ``last`` depends on, itself included, in order, with their nodes."""
    needed = {last}
    chosen: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        chosen.append(node)
        needed.update(name for name in node.input if name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                # Names of the inner graph are harmless: no outer node produces them.
                for inner in all_nodes(attribute.g):
                    needed.update(name for name in inner.input if name)
                needed.update(value.name for value in attribute.g.output)
    return {
        name: node for node in reversed(chosen) for name in node.output if name and name in needed
    }
