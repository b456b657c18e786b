"""The words shared by every room. Depends on numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Head = Literal["logits", "softmax", "log_softmax", "logit", "sigmoid"]
SINGLE_HEADS: tuple[Head, ...] = ("logit", "sigmoid")
Granularity = Literal["channel", "tensor"]
Choice = Literal["auto", "always", "never"]
ShadowKind = Literal["folded", "half", "int8"]
"""How the weights of a detector's bounded branch are stored that is no copy of the original."""
ShadowChoice = Literal["auto", "float", "folded", "half", "int8"]
Source = Literal["original", "bounded"]
"""The branch of a detector that evidence is read in."""

FLAGGED = "mmbm_flagged"
P_VALUE = "mmbm_p_value"
SCORE = "mmbm_score"
SUSPECTED = "mmbm_suspected_class"
CORRECTED = "mmbm_corrected_class"
DETECTOR_OUTPUTS = (FLAGGED, P_VALUE, SCORE, SUSPECTED, CORRECTED)
"""What a detector graph appends to the original's outputs, in this order."""

ACTIVATIONS = (
    "Relu",
    "Clip",
    "Celu",
    "Elu",
    "Gelu",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Selu",
    "Softplus",
    "Swish",
    "ThresholdedRelu",
)
"""Operators that take bounds: they have no upper limit, or one that can be lowered."""


@dataclass(frozen=True, slots=True)
class Site:
    """An activation tensor that takes an upper bound, identified by its tensor name.

    Attributes:
        tensor: Name of the activation's output tensor, unique in the model.
        kind: The activation: an operator of ``ACTIVATIONS``; ``"Clip"`` for one used as ReLU6.
        dtype: Element type of the tensor (float16, float32, float64 or bfloat16).
        rank: Number of axes, or None when shape inference cannot tell.
        channel_axis: Axis of the channels, counted from 0 (never the batch axis), or None when
            it cannot be told; such a site takes one bound for the whole tensor.
        channels: Length of that axis, or None when it is not static.
        upper: The activation's own upper limit (6.0 for ReLU6), or None.
        scope: Where the producing node lives: ``""`` for the main graph, otherwise
            ``"<node>/<attribute>"`` of the enclosing subgraph, joined by ``"/"``.
        written_out: Operator of the node that produces it where the activation is written out in
            several, such as ``"Mul"``; None where it is one node.
    """

    tensor: str
    kind: str
    dtype: np.dtype[Any]
    rank: int | None
    channel_axis: int | None
    channels: int | None
    upper: float | None = None
    scope: str = ""
    written_out: str | None = None


@dataclass(frozen=True, slots=True)
class Uncovered:
    """An activation that takes no bound, and why."""

    tensor: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Interface:
    """How a classifier is fed and read.

    Attributes:
        input: Name of the one graph input that carries samples.
        input_dtype: Its element type.
        input_shape: Its shape; axis 0 is the batch; None for an axis of any length.
        batch: The fixed batch size, or None when the batch axis is dynamic.
        output: Name of the graph output that carries the classification.
        logits: Name of the tensor holding the logits, shape ``(batch, classes)``; equals
            ``output`` unless a softmax lies between. Of a model of two classes with a single
            logit, that of class 1, ``(batch, 1)``.
        classes: Number of classes (at least 2).
        head: What lies between ``logits`` and ``output``: nothing, for ``"logits"`` and a single
            ``"logit"``, a softmax of several, or a ``"sigmoid"`` of a single one.
        start: Of a model that takes integers, the tensor that they are embedded as, which
            gradients flow to; None where the input itself is floating point.
        tokens: Whether its integers are looked up in a table, so that they are no pixels.
    """

    input: str
    input_dtype: np.dtype[Any]
    input_shape: tuple[int | None, ...]
    batch: int | None
    output: str
    logits: str
    classes: int
    head: Head = "logits"
    start: str | None = None
    tokens: bool = False

    @property
    def takes_integers(self) -> bool:
        """Whether samples are integers."""
        return bool(self.input_dtype.kind in "iu")

    @property
    def single(self) -> bool:
        """Whether there is a single logit z, that of class 1: two logits are -z/2 and z/2, whose
        margins, softmax and decision are those of z against 0."""
        return self.head in SINGLE_HEADS


@dataclass(frozen=True, slots=True)
class Bounds(Mapping[str, npt.NDArray[np.float32]]):
    """One strictly positive upper bound per channel, or per tensor, for every bounded site.

    Attributes:
        arrays: Site tensor name to a float32 array, shape ``(channels,)`` or ``()``, in the unit
            of that activation. Order is the order of the sites.

    Raises:
        ValueError: A bound is not finite and positive, or has more than one axis.
    """

    arrays: Mapping[str, npt.NDArray[np.float32]]

    def __post_init__(self) -> None:
        for tensor, bound in self.arrays.items():
            if bound.ndim > 1:
                raise ValueError(f"bound of {tensor!r} has {bound.ndim} axes, expected 0 or 1")
            if not (np.isfinite(bound).all() and (bound > 0).all()):
                raise ValueError(f"bounds of {tensor!r} are not all finite and positive")

    def __getitem__(self, tensor: str) -> npt.NDArray[np.float32]:
        return self.arrays[tensor]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples as the model takes them.

    Attributes:
        x: ``(n, *model input shape without batch)``, in the model's input dtype.
        y: True labels, int64 ``(n,)``, or None.
        target: The attacker's class of each sample, int64 ``(n,)``; only in triggered sets.
        class_names: Names of the classes in index order where known, else empty.
        source: What they were read from, for messages.
        preprocessing: How images became samples, every setting by name; None where they were
            samples already.
        notes: What reading them decided, one line each, for the report.
        warnings: What reading them dropped that may matter (alpha channels, ...), one line each.
    """

    x: npt.NDArray[Any]
    y: IntArray | None = None
    target: IntArray | None = None
    class_names: tuple[str, ...] = ()
    source: str = "samples"
    preprocessing: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: IntArray) -> Samples:
        """The samples at ``index`` (int64 ``(m,)``), in that order."""
        return Samples(
            x=self.x[index],
            y=None if self.y is None else self.y[index],
            target=None if self.target is None else self.target[index],
            class_names=self.class_names,
            source=self.source,
            preprocessing=self.preprocessing,
            notes=self.notes,
            warnings=self.warnings,
        )

    def at_most(self, count: int, seed: int) -> Samples:
        """These, or ``count`` of them drawn by ``seed``, in their order."""
        if len(self) <= count:
            return self
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return self.take(np.sort(chosen))


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a long job, handed to a progress callback.

    Attributes:
        phase: What is being done: ``"read"``, ``"parity"``, ``"learn"``, ``"write"``,
            ``"evaluate"``, or a part of one of them.
        step: Steps done so far, from 0 to ``total``.
        total: Steps in this phase.
        values: Figures of the step (``epoch``, ``loss``, ``accuracy``, ...).
    """

    phase: str
    step: int
    total: int
    values: Mapping[str, float]
