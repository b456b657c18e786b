"""What a method is made of, and the methods there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mmbm_onnx.errors import OptionError
from mmbm_onnx.runtime.batches import affordable_batch

Start = Literal["low", "maximum", "constant"]
Scale = Literal["logarithmic", "linear"]
Penalty = Literal["margin", "norm"]
AttackerKind = Literal["universal", "noise"]
JudgedOn = Literal["fit", "calibration"]
Keep = Literal["last", "held"]
Score = Literal["evidence", "margin"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How bounds are learned. Every field is recorded in the report.

    Attributes:
        method: Its name on the command line.
        start: Where bounds begin: ``"low"``, at mean + ``start_value`` standard deviations of each
            channel's clean activations; ``"maximum"``, at ``start_value`` times each channel's
            clean maximum; ``"constant"``, at ``start_value`` everywhere.
        start_value: See ``start``.
        scale: What the optimiser steps on: the logarithm of each bound's ratio to its start, or
            the bound itself.
        learning_rate: Adam's, in the unit of ``scale``.
        final_rate: Share of it that steps sink to by the end, along half a cosine.
        epochs: Passes over the fit part.
        batch_size: Clean samples per step; as many max-margin inputs join them.
        penalty: What is made small beside fidelity: the margin that attacking inputs reach in the
            bounded network (MMAC), or the norm of the bounds (MM-BM).
        attackers: The attacking inputs: ``"universal"`` perturbations of clean samples, one per
            class and size, or max-margin inputs that climbed from ``"noise"``.
        relative: Whether fidelity is measured in the variance of the original logits, the margin
            in the mean clean margin and norms in those of the start, or all absolutely.
        floor: A margin at or below it pulls no further, so that all pull comes from attacks that
            get somewhere; in the unit that ``relative`` says. None for no floor.
        weight: Weight of the penalty at the start.
        weight_factor: The weight is multiplied by it while there is room for more, divided when
            not.
        weight_every: Epochs between such changes.
        weight_after: Epoch after which they begin. Where bounds start low, early epochs lack
            accuracy whatever the weight is, and would take it to nothing.
        accuracy: Share of the fit part's decisions that the bounded network must keep.
        judged_on: What else accuracy is judged on: nothing but the ``"fit"`` part, or the
            ``"calibration"`` part too, whose accuracy, as a share of the original's, must not be
            lower either. Bounds are not learned on it: where samples are few, decisions on the fit
            part are kept long after others are lost. One sample may go wrong unnoticed; of more
            than 1,000, so many are drawn. What the original gets wrong of the fit part and the
            bounded network right counts as kept, then, where labels are known.
        fidelity: What fidelity is to end at. Then the weight moves by less where little room is
            left in it or in ``accuracy``, and faster back where they are missed. None: full steps,
            on accuracy alone, as published.
        divergence: Weight of the Kullback-Leibler divergence between the softmax of original and
            bounded logits on clean samples, in nats, beside fidelity. Squares weigh a shift of
            all logits as much as one that changes the decision; this is of decisions.
        tightened_fidelity: Once learned, all bounds are multiplied by the smallest common factor
            that leaves fidelity at most here and ``tightened_accuracy``. Where ``accuracy`` is
            missed by more than the standard error of the samples it is judged on, they move
            towards their channels' clean maxima instead, as far as it takes to get back there.
            None: as learned.
        tightened_accuracy: See ``tightened_fidelity``.
        renewed_every: Epochs after which attackers are renewed; 0 for never. With so many classes
            that they take turns and would not have two each by the end, as often as it takes.
        renewal_steps: Gradient steps of a renewal against the bounded network.
        attack_bounded: Whether a renewal moves them on against the bounded network as it is by
            then, so that bounds and attackers play the min-max game that MMAC's objective states;
            otherwise they are made again against the original.
        sizes: Sizes of universal perturbations: root mean square, as shares of the input range.
        focus: How much more often classes are attacked whose perturbations reach larger margins:
            ``exp(margin / focus)``, in mean clean margins; the class of a backdoor is one. None:
            all classes alike.
        samples_per_pattern: Clean samples that a gradient step of one perturbation sees.
        inputs_per_class: Max-margin inputs from noise, per class (fewer for over 100 classes).
        input_steps: Gradient steps that make one.
        input_rate: Size of a step: Adam's learning rate as a share of the input range when
            ``relative``, plain gradient descent's otherwise.
        keep: Which bounds are the result: the ``"last"`` epoch's, or those of the last epoch in
            which ``accuracy`` ``"held"``, once the weight adapts: over its steps on the fit part,
            and at its end on what else it is judged on.
    """

    method: str
    start: Start = "low"
    start_value: float = 1.0
    scale: Scale = "logarithmic"
    learning_rate: float = 0.05
    final_rate: float = 0.1
    epochs: int = 100
    batch_size: int = 100
    penalty: Penalty = "margin"
    attackers: AttackerKind = "universal"
    relative: bool = True
    floor: float | None = -0.3
    weight: float = 1.0
    weight_factor: float = 1.2
    weight_every: int = 1
    weight_after: int = 5
    accuracy: float = 0.97
    judged_on: JudgedOn = "fit"
    fidelity: float | None = 0.08
    divergence: float = 0.0
    tightened_fidelity: float | None = 0.12
    tightened_accuracy: float = 0.98
    renewed_every: int = 5
    renewal_steps: int = 10
    attack_bounded: bool = True
    sizes: tuple[float, ...] = (0.02, 0.04, 0.08)
    focus: float | None = None
    samples_per_pattern: int = 4
    inputs_per_class: int = 10
    input_steps: int = 100
    input_rate: float = 0.02
    keep: Keep = "held"
    score: Score = "evidence"

    def for_inputs(self, values: int) -> Settings:
        """The same with a batch size lowered for large inputs, so that a step fits in memory.

        Args:
            values: Numbers in one input, such as 3 * 224 * 224.
        """
        return replace(self, batch_size=affordable_batch(values, self.batch_size))

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, for the report."""
        return asdict(self)


_METHODS = {
    # MMAC's objective as a min-max game over universal perturbations of clean samples.
    "mmac-universal": Settings(
        "mmac-universal",
        epochs=60,
        weight_after=20,
        accuracy=0.98,
        judged_on="calibration",
        fidelity=0.25,
        divergence=1.0,
        tightened_fidelity=0.3,
        focus=0.1,
    ),
    # MMAC's objective over inputs from noise, scale-free: nothing in it depends on the unit of
    # activations or logits.
    "mmac": Settings("mmac", attackers="noise", renewed_every=10, renewal_steps=20, score="margin"),
    # MM-BM, arXiv 2205.06900, section 5: fidelity plus the norm of the bounds.
    "mmbm": Settings(
        "mmbm",
        start="maximum",
        penalty="norm",
        weight=0.5,
        learning_rate=0.02,
        accuracy=0.95,
        score="margin",
    ),
    # MMAC, arXiv 2308.04617, with the constants of its public implementation.
    "mmac-reference": Settings(
        "mmac-reference",
        start="constant",
        start_value=1.0,
        scale="linear",
        learning_rate=0.1,
        epochs=300,
        batch_size=200,
        final_rate=1.0,
        relative=False,
        floor=None,
        fidelity=None,
        tightened_fidelity=None,
        weight=0.002,
        weight_every=10,
        weight_after=30,
        accuracy=0.95,
        inputs_per_class=50,
        input_steps=300,
        input_rate=0.01,
        attackers="noise",
        renewed_every=100,
        attack_bounded=False,
        keep="last",
        score="margin",
    ),
}
METHODS = tuple(_METHODS)


def settings_for(method: str, **changes: Any) -> Settings:
    """The settings of a method, with those of ``changes`` that are not None applied.

    With other ``epochs`` the weight of a method of ours begins to move after the same share of
    them.

    Raises:
        OptionError: No such method, or a value out of range.
    """
    if method not in _METHODS:
        raise OptionError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    given = {name: value for name, value in changes.items() if value is not None}
    for name in ("epochs", "batch_size"):
        if name in given and given[name] < 1:
            raise OptionError(f"{name} must be at least 1, not {given[name]}")
    settings = _METHODS[method]
    if "epochs" in given and settings.relative:  # what is published is of so many epochs
        given = {"weight_after": settings.weight_after * given["epochs"] // settings.epochs} | given
    return replace(settings, **given)
