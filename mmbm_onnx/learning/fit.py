"""The loop that learns the bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmbm_onnx.errors import DataError, ModelError
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points, joined
from mmbm_onnx.learning.adam import Adam
from mmbm_onnx.learning.attackers import Attackers, NoiseAttackers
from mmbm_onnx.learning.checkpoint import Checkpoint, State
from mmbm_onnx.learning.judge import Judge, Mistakes
from mmbm_onnx.learning.margin import margins
from mmbm_onnx.learning.parameters import BoundParameters
from mmbm_onnx.learning.settings import Settings
from mmbm_onnx.learning.statistics import activation_statistics
from mmbm_onnx.learning.universal import UniversalAttackers
from mmbm_onnx.types import Bounds, Granularity, IntArray, Progress, Samples, Site

_ROOM = 0.02  # of accuracy above its target, for a full step of the weight
_FASTEST_BACK = -3.0  # steps of the weight in one
_TIGHTER = 0.95  # how closely a common factor is sought
_TIGHTENINGS = 20  # to a factor of 0.36
_TURNS = 2  # that each class is attacked in, where not all are at a time and there is time for it
_DOUBT = 1.0  # standard errors
_CLOSE = 0.01  # to the share by which bounds are loosened


@dataclass(frozen=True, slots=True)
class Learned:
    """What learning gave.

    Attributes:
        bounds: One per site.
        history: One entry per epoch: ``loss``, ``fidelity``, ``penalty``, ``accuracy`` (as a share
            of the original's; above 1 where bounds put more right than wrong), ``weight``.
        samples: Number of samples used.
        warnings: One line each.
    """

    bounds: Bounds
    history: list[dict[str, float]]
    samples: int
    warnings: tuple[str, ...] = ()


def learn_bounds(
    classifier: Classifier,
    fit: Samples,
    sites: Sequence[Site],
    settings: Settings,
    *,
    calibration: Samples | None = None,
    granularity: Granularity = "channel",
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Learned:
    """Learn upper bounds on activations from clean samples.

    Minimises ``fidelity(bounds) + divergence(bounds) + weight * penalty(bounds)`` over the bounds
    alone. Fidelity is the mean squared difference of bounded and original logits on clean samples,
    divergence what ``Settings`` says of it (none as published); the penalty is
    the mean margin that attacking inputs reach in the bounded network (MMAC, arXiv 2308.04617) or
    the norm of the bounds (MM-BM, arXiv 2205.06900). The weight is adapted so that fidelity on the
    fit part and accuracy end near their targets. On the CPU equal arguments give equal bits.

    Args:
        classifier: The network; not changed.
        fit: Clean samples. When labels are known, bounds are not learned on those that the network
            gets wrong; with accuracy judged on the calibration part, too, they count where bounds
            put them right. Without labels the network's own decisions are what must be kept.
        sites: Where bounds go.
        settings: See ``Settings``.
        calibration: What accuracy is judged on besides the fit part, where the settings say so.
        granularity: One bound per channel, or per tensor.
        seed: Of the order of samples and of the noise max-margin inputs start from.
        progress: Called after every step, with the epoch and how many there are, and loss,
            accuracy, penalty and weight of the last whole epoch.
        checkpoint: Where the state is kept from time to time, and gone on from; the result is that
            of a run that was not stopped.

    Raises:
        DataError: The network gets every sample wrong, the loss is not finite, or the checkpoint
            cannot be used.
    """
    x = torch.from_numpy(np.ascontiguousarray(fit.x)).to(classifier.device, classifier.dtype)
    reference = original_logits(classifier, x, settings.batch_size)
    right = _right(reference, fit.y)
    judge, mistakes = None, None
    if settings.judged_on == "calibration" and calibration is not None:
        judge = Judge(classifier, calibration, 2 * settings.batch_size, seed)
        if fit.y is not None:
            labels = torch.from_numpy(fit.y)[~right.cpu()]
            mistakes = Mistakes(classifier, x[~right], labels, 2 * settings.batch_size)
    x, reference = x[right], reference[right]
    decisions = reference.argmax(1)
    statistics = activation_statistics(classifier, x, sites, granularity, settings.batch_size)
    parameters = BoundParameters(sites, statistics, settings)
    clean = classifier.points(x, settings.batch_size)
    loop = _Loop(
        classifier,
        clean,
        reference,
        decisions,
        judge,
        mistakes,
        parameters,
        settings,
        seed,
        progress,
    )
    history = loop.run(checkpoint)
    warnings = (*loop.warnings, *(checkpoint.warnings if checkpoint is not None else ()))
    return Learned(parameters.result(), history, len(x), warnings)


@torch.no_grad()
def original_logits(classifier: Classifier, x: Tensor, batch_size: int) -> Tensor:
    """Logits of the unbounded network, ``(n, classes)``, computed batch by batch."""
    return torch.cat([classifier.logits(batch) for batch in torch.split(x, batch_size)])


def _right(reference: Tensor, labels: IntArray | None) -> Tensor:
    """Which samples the network gets right, ``(n,)`` bool: all, where nothing tells."""
    if labels is None:
        return torch.ones(len(reference), dtype=torch.bool, device=reference.device)
    right = reference.argmax(1) == torch.from_numpy(labels).to(reference.device)
    if not bool(right.any()):
        raise DataError("the model gets every clean sample wrong; check preprocessing and labels")
    return right


@dataclass(slots=True)
class _Place:
    """How far a run is: the next epoch, its weight, entries so far, bounds that held."""

    weight: float
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    kept: list[Tensor] | None = None


def _numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{index}": tensor for index, tensor in enumerate(tensors)}


def _ordered(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensors[str(index)] for index in range(len(tensors))]


class _Loop:
    """State of one learning run."""

    def __init__(
        self,
        classifier: Classifier,
        x: Points,
        reference: Tensor,
        decisions: Tensor,
        judge: Judge | None,
        mistakes: Mistakes | None,
        parameters: BoundParameters,
        settings: Settings,
        seed: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.classifier = classifier
        self.x = x
        self.reference = reference
        self.decisions = decisions
        self.judge = judge
        self.mistakes = mistakes
        self.parameters = parameters
        self.settings = settings
        self.progress = progress
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = Adam(parameters.trained, settings.learning_rate)
        clean = margins(reference, decisions)
        self.logit_unit = float(reference.var().clamp_min(1e-12)) if settings.relative else 1.0
        self.margin_unit = float(clean.mean().clamp_min(1e-6)) if settings.relative else 1.0
        self.attackers = self._make_attackers()
        self.warnings: list[str] = []
        self.steps = 0
        self.latest: dict[str, float] = {}

    def _make_attackers(self) -> Attackers | None:
        classes = self.reference.shape[1]
        if self.settings.penalty != "margin":
            return None
        if self.settings.attackers == "universal":
            return UniversalAttackers(
                self.classifier,
                self.x,
                self.decisions,
                classes,
                self.settings,
                self.generator,
                self.margin_unit,
            )
        return NoiseAttackers(
            self.classifier,
            self.x,
            classes,
            self.settings,
            self.generator,
            self._input_progress(),
        )

    def run(self, checkpoint: Checkpoint | None = None) -> list[dict[str, float]]:
        settings = self.settings
        state = None if checkpoint is None else checkpoint.load()
        at = _Place(weight=settings.weight) if state is None else self._restored(state)
        while at.epoch < settings.epochs:
            self._set_rate(at.epoch)
            self._renew(at.epoch)
            entry = self._epoch(at.weight)
            entry["weight"] = at.weight
            if settings.keep == "held":
                entry["accuracy"] = self._judged(entry["accuracy"])
            at.history.append(entry)
            if not np.isfinite(entry["loss"]):
                raise DataError("learning diverged (the loss is not finite); check the clean set")
            adapting = at.epoch > settings.weight_after
            last = at.epoch == settings.epochs - 1
            if entry["accuracy"] >= settings.accuracy and (adapting or last):
                at.kept = self.parameters.snapshot()
            if adapting and at.epoch % settings.weight_every == 0:
                at.weight *= settings.weight_factor ** self._room(entry)
            self.latest = entry
            at.epoch += 1
            if checkpoint is not None and checkpoint.due():
                checkpoint.save(self._state(at))
        history, kept = at.history, at.kept
        if settings.keep == "held" and kept is not None:
            self.parameters.restore(kept)
        found = kept is not None
        if settings.tightened_fidelity is not None:
            found = self._tighten(settings.tightened_fidelity)
        self._warn(history, found=found)
        return history

    def _state(self, at: _Place) -> State:
        tensors = {"generator": self.generator.get_state()}
        tensors |= _numbered("trained", self.parameters.snapshot())
        tensors |= _numbered("kept", at.kept or [])
        if self.attackers is not None:
            tensors |= {f"attackers/{k}": value for k, value in self.attackers.state().items()}
        tensors |= {f"optimizer/{k}": value for k, value in self.optimizer.state().items()}
        values = {
            "epoch": at.epoch,
            "weight": at.weight,
            "history": at.history,
            "kept": at.kept is not None,
            "steps": self.steps,
        }
        return State(values, tensors)

    def _restored(self, state: State) -> _Place:
        """Come back to a state that ``_state`` made with the same arguments."""
        device = self.reference.device
        self.generator.set_state(state.tensors["generator"])
        self.parameters.restore([value.to(device) for value in _ordered(state.part("trained"))])
        if self.attackers is not None:
            self.attackers.restore(state.part("attackers"))
        self.optimizer.restore(state.part("optimizer"))
        values = state.values
        self.steps = values["steps"]
        kept = [value.to(device) for value in _ordered(state.part("kept"))]
        at = _Place(values["weight"], values["epoch"], values["history"])
        at.kept = kept if values["kept"] else None
        self.latest = at.history[-1]
        return at

    def _set_rate(self, epoch: int) -> None:
        final = self.settings.final_rate
        share = final + (1 - final) * (1 + math.cos(math.pi * epoch / self.settings.epochs)) / 2
        self.optimizer.rate = share * self.settings.learning_rate

    def _room(self, entry: Mapping[str, float]) -> float:
        """Which way the weight moves and how far: from 1, there is room for more, to -3."""
        settings = self.settings
        if settings.fidelity is None:
            return 1.0 if entry["accuracy"] >= settings.accuracy else -1.0
        room = min(
            2 * (1 - entry["fidelity"] / settings.fidelity),
            (entry["accuracy"] - settings.accuracy) / _ROOM,
        )
        return max(_FASTEST_BACK, min(1.0, room))

    def _tighten(self, fidelity: float) -> bool:
        """Multiply all bounds by the smallest common factor that clean samples bear; loosen them
        if those do not bear the bounds as they are. Returns whether they bear the result."""
        settings = self.settings
        borne = self._borne()
        if self._measure()[0] < borne:
            return self._loosen(borne)
        for _ in range(_TIGHTENINGS):
            before = self.parameters.snapshot()
            self.parameters.multiply(_TIGHTER)
            accuracy, reached = self._measure()
            if accuracy < settings.tightened_accuracy or reached > fidelity:
                self.parameters.restore(before)
                break
        return True

    def _borne(self) -> float:
        """The accuracy below which bounds are loosened: the target less the standard error that so
        many samples have. Loosening for the sake of one sample costs more than it gives."""
        target = min(self.settings.accuracy, 1.0)
        count = len(self.x) if self.judge is None else self.judge.count
        return self.settings.accuracy - _DOUBT * math.sqrt(target * (1 - target) / count)

    def _loosen(self, accuracy: float) -> bool:
        """Move all bounds by the smallest share of the way to their channels' clean maxima with
        which that accuracy is reached; put them there if none is enough."""
        before = self.parameters.snapshot()

        def enough(share: float) -> bool:
            self.parameters.loosen(before, share)
            return self._measure()[0] >= accuracy

        low, high = 0.0, 1.0
        if not enough(high):
            return False
        while high - low > _CLOSE:
            middle = (low + high) / 2
            if enough(middle):
                high = middle
            else:
                low = middle
        self.parameters.loosen(before, high)
        return True

    def _warn(self, history: list[dict[str, float]], *, found: bool) -> None:
        if self.settings.keep == "held" and not found:
            self.warnings.append(
                f"no bounds kept {self.settings.accuracy:.0%} of the clean decisions (the last "
                f"epoch's {history[-1]['accuracy']:.1%}); try more epochs or clean samples"
            )
        missed = self.attackers.missed if self.attackers is not None else 0
        if missed:
            self.warnings.append(
                f"{missed} of {self.reference.shape[1]} classes were never attacked while bounds "
                "were learned; more epochs reach more of them"
            )

    def _renewed_every(self, attackers: Attackers) -> int:
        """As the settings have it, or more often where classes take turns and are many."""
        every, classes = self.settings.renewed_every, self.reference.shape[1]
        if every == 0 or attackers.at_a_time >= classes:
            return every
        needed = self.settings.epochs * attackers.at_a_time // (_TURNS * classes)
        return max(1, min(every, needed))

    def _renew(self, epoch: int) -> None:
        if self.attackers is None:
            return
        every = self._renewed_every(self.attackers)
        if not (epoch == 0 or (every > 0 and epoch % every == 0)):
            return
        with torch.no_grad():
            bounds = {name: bound.clone() for name, bound in self.parameters.bounds().items()}
        self.attackers.renew(bounds)

    def _input_progress(self) -> Callable[[int, int], None] | None:
        if self.progress is None:
            return None
        callback = self.progress
        return lambda step, total: callback(Progress("max-margin inputs", step, total, {}))

    def _epoch(self, weight: float) -> dict[str, float]:
        order = torch.randperm(len(self.x), generator=self.generator).to(self.reference.device)
        sums = {"loss": 0.0, "fidelity": 0.0, "penalty": 0.0, "accuracy": 0.0}
        for batch in torch.split(order, self.settings.batch_size):
            fidelity, divergence, penalty, right = self._losses(batch)
            loss = fidelity + divergence + weight * penalty
            if not loss.requires_grad:
                raise ModelError(
                    "no gradient of the logits reaches a bound: something between them has none, "
                    "such as a Cast to integers; take it out of the model"
                )
            trained = self.parameters.trained
            self.optimizer.step(torch.autograd.grad(loss, trained, allow_unused=True))
            self.parameters.project()
            share = len(batch) / len(self.x)
            sums["loss"] += share * loss.item()
            sums["fidelity"] += share * fidelity.item()
            sums["penalty"] += share * penalty.item()
            sums["accuracy"] += right / len(self.x)
            self._tell()
        return sums

    def _tell(self) -> None:
        """One more step is done."""
        self.steps += 1
        if self.progress is not None:
            per_epoch = -(-len(self.x) // self.settings.batch_size)
            total = per_epoch * self.settings.epochs
            epoch = {"epoch": -(-self.steps // per_epoch), "epochs": self.settings.epochs}
            self.progress(Progress("learn", self.steps, total, {**epoch, **self.latest}))

    @torch.no_grad()
    def _judged(self, accuracy: float) -> float:
        """The lower of an accuracy on the fit part and that on what else it is judged on, both as
        shares of the original's: what was wrong and is right now counts, too."""
        if self.judge is None:
            return accuracy
        bounds = self.parameters.bounds()
        if self.mistakes is not None:
            accuracy += self.mistakes.righted(bounds) / len(self.x)
        return min(accuracy, self.judge.accuracy(bounds))

    @torch.no_grad()
    def _measure(self) -> tuple[float, float]:
        """Of the bounded network: accuracy, as a share of the original's, and fidelity on the fit
        part. The former is the lower of that on the fit part and on what else it is judged on."""
        bounds = self.parameters.bounds()
        right, squares = 0, 0.0
        for index in torch.split(torch.arange(len(self.x)), 2 * self.settings.batch_size):
            logits = self.classifier.logits(self.x[index], bounds)
            right += int((logits.argmax(1) == self.decisions[index]).sum())
            squares += float((logits - self.reference[index]).square().sum())
        accuracy = self._judged(right / len(self.x))
        return accuracy, squares / self.reference.numel() / self.logit_unit

    def _losses(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Fidelity, divergence, penalty, and how many of the batch are decided as the original
        decides."""
        bounds = self.parameters.bounds()
        x = self.x[batch]
        if self.attackers is not None:
            attacks, targets = self.attackers.batch(batch)
            x = joined([x, attacks])
        logits = self.classifier.logits(x, bounds)
        clean, attacked = logits[: len(batch)], logits[len(batch) :]
        reference = self.reference[batch]
        fidelity = (clean - reference).square().mean() / self.logit_unit
        divergence = self._divergence(clean, reference)
        right = int((clean.argmax(1) == self.decisions[batch]).sum())
        if self.attackers is None:
            return fidelity, divergence, self._norm(bounds), right
        reached = margins(attacked, targets)
        if self.settings.relative:
            reached = reached / self.margin_unit
            self.attackers.reached(targets, reached.detach())
        if self.settings.floor is not None:
            reached = reached.clamp_min(self.settings.floor)
        penalty = reached.mean() if self.settings.relative else reached.sum()
        return fidelity, divergence, penalty, right

    def _divergence(self, logits: Tensor, reference: Tensor) -> Tensor:
        """With its weight."""
        weight = self.settings.divergence
        if weight == 0:
            return logits.new_zeros(())
        bounded, original = logits.log_softmax(1), reference.log_softmax(1)
        found = functional.kl_div(bounded, original, reduction="batchmean", log_target=True)
        return weight * found

    def _norm(self, bounds: dict[str, Tensor]) -> Tensor:
        norms = [
            bound.norm() / start.norm() if self.settings.relative else bound.norm()
            for bound, start in zip(bounds.values(), self.parameters.start.values(), strict=True)
        ]
        total = torch.stack(norms)
        return total.mean() if self.settings.relative else total.sum()
