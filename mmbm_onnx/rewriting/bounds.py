"""One bound as ONNX nodes: Clip for a scalar, Min for one value per channel.

ONNX Clip takes scalars only (operator specification). ONNX Runtime fuses Relu followed by such a
Clip into the convolution before it, as it does with a Clip in the Relu's place, so the Relu stays
and the bound is an addition. Min broadcasts from opset 8 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import Site

_FLOAT64 = np.dtype(np.float64)
_CLIP_OPSET = 6
_CLIP_INPUTS_OPSET = 11
_MIN_BROADCAST_OPSET = 8


def round_down(bound: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The bound in ``dtype``, rounded towards zero, so that it never exceeds the learned one.

    A bound below the smallest normal number of ``dtype`` becomes that number: a runtime may take
    smaller ones for zero, which would cut the channel off. One above the largest becomes the
    largest.

    Args:
        bound: float32, any shape, finite and positive.
        dtype: float16, float32, float64 or bfloat16.
    """
    learned = np.asarray(bound, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        rounded = learned.astype(dtype)
        above = rounded.astype(np.float64) > learned
        below = np.nextafter(rounded, np.zeros((), dtype=dtype))
    lowered = np.where(above, below, rounded).astype(dtype)
    # bfloat16 has the exponents of float32.
    of = np.dtype(np.float32 if dtype.name == "bfloat16" else dtype)
    smallest = np.asarray(np.finfo(of).tiny, dtype)
    return np.where(lowered > smallest, lowered, smallest).astype(dtype).reshape(np.shape(bound))


def bound_output(
    surgeon: Surgeon,
    graph: gs.Graph,
    node: gs.Node,
    site: Site,
    bound: npt.NDArray[np.float32],
) -> gs.Tensor:
    """Bound what ``node`` produces; the tensor's name stays with the bounded value.

    A Clip used as ReLU6 takes a scalar bound as its upper limit. Every other activation keeps its
    node, which now produces ``<tensor>/mmbm_unbounded``, followed by Clip or Min.

    Args:
        surgeon: The model being changed.
        graph: The main graph or subgraph that holds ``node``.
        node: The activation, or a copy of it; its first output takes the bound.
        site: What is known of the tensor.
        bound: float32, ``()`` or ``(channels,)``.

    Returns:
        The value before the bound, or the bounded one where a ReLU6 took the bound itself.

    Raises:
        RewriteError: The bound does not fit the tensor, or cannot be said at this opset.
    """
    check_bound(surgeon.opset, site, bound)
    if node.op == "Clip" and bound.ndim == 0:
        _tighten(surgeon, node, site, bound)
        return node.outputs[0]
    bounded = node.outputs[0]
    unbounded = surgeon.variable(f"{bounded.name}/mmbm_unbounded")
    surgeon.describe(graph, unbounded.name, like=bounded.name)
    node.outputs[0] = unbounded
    surgeon.insert_after(graph, node, bound_node(surgeon, unbounded, bounded, site, bound))
    return unbounded


def bound_node(
    surgeon: Surgeon,
    source: gs.Tensor,
    target: gs.Tensor,
    site: Site,
    bound: npt.NDArray[np.float32],
) -> gs.Node:
    """The node that computes ``target = min(source, bound)``.

    Arguments and errors as for ``bound_output``; the node is in no graph yet.
    """
    check_bound(surgeon.opset, site, bound)
    values = round_down(bound, site.dtype)
    name = f"{target.name}/mmbm_bound"
    node = gs.Node("Clip", name=surgeon.fresh_node(name), inputs=[source], outputs=[target])
    if bound.ndim == 1:
        assert site.rank is not None and site.channel_axis is not None
        values = values.reshape(-1, *(1,) * (site.rank - site.channel_axis - 1))
    if bound.ndim == 1 or site.dtype == _FLOAT64:
        # ONNX Runtime has no Relu-Clip pair in float64 that loads at every opset; Min does.
        node.op = "Min"
        node.inputs.append(surgeon.constant(name, values))
    elif surgeon.opset < _CLIP_INPUTS_OPSET:
        node.attrs["max"] = float(values)
    else:
        node.inputs.extend([gs.Variable.empty(), surgeon.constant(name, values)])
    return node


def _tighten(surgeon: Surgeon, node: gs.Node, site: Site, bound: npt.NDArray[np.float32]) -> None:
    values = round_down(bound, site.dtype)
    if site.upper is not None and float(values) > site.upper:
        values = np.array(site.upper, dtype=site.dtype)
    if surgeon.opset < _CLIP_INPUTS_OPSET:
        node.attrs["max"] = float(values)
        return
    # A constant of its own: the old limit may be shared with other nodes.
    limit = surgeon.constant(f"{site.tensor}/mmbm_bound", values)
    while len(node.inputs) < 3:
        node.inputs.append(gs.Variable.empty())
    node.inputs[2] = limit


def check_bound(opset: int, site: Site, bound: npt.NDArray[np.float32]) -> None:
    """Refuse a bound that does not fit its site or has no operator at this opset.

    Raises:
        RewriteError: Naming the tensor and the way out.
    """
    name = site.tensor
    if opset < _CLIP_OPSET:
        raise RewriteError(
            f"cannot bound {name!r}: opset {opset} is below {_CLIP_OPSET}; convert the model with "
            "onnx.version_converter"
        )
    if bound.ndim == 1:
        if site.rank is None or site.channel_axis is None:
            raise RewriteError(f"cannot bound {name!r} per channel: its channel axis is unknown")
        if site.channels is not None and len(bound) != site.channels:
            raise RewriteError(
                f"{len(bound)} bounds for {name!r}, which has {site.channels} channels"
            )
    if opset < _MIN_BROADCAST_OPSET and (bound.ndim == 1 or site.dtype == _FLOAT64):
        what = "in float64" if site.dtype == _FLOAT64 else "per channel"
        instead = "" if site.dtype == _FLOAT64 else "bound whole tensors instead, or "
        raise RewriteError(
            f"cannot bound {name!r} {what}: Min does not broadcast at opset {opset}; {instead}"
            f"convert the model to opset {_MIN_BROADCAST_OPSET} with onnx.version_converter"
        )
