"""Universal perturbations: one pattern per class and size that, added to whatever clean sample,
drives it to that class. A backdoor's trigger is one; these are found by looking for them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.execution.points import Points
from mmbm_onnx.learning.margin import pattern_gradient
from mmbm_onnx.learning.settings import Settings

_MOST_CLASSES = 20  # with patterns at a time; with more classes, others take their turn
_STEP = 0.3  # of a pattern's size
_ENOUGH = 0.6  # mean clean margins: a sample driven this far pulls a pattern no further
_EVEN = 0.3  # of attacks: those that go to all classes alike, whatever the focus
_NEW = 0.1  # weight of a batch in the margin that a class is known to reach


class UniversalAttackers:
    """Patterns of bounded Euclidean norm that climb the margin of their class.

    They attack the *bounded* network as it is when ``renew`` is called, each from where it stands,
    so that bounds and patterns play the min-max game of MMAC's objective (arXiv 2308.04617), the
    inner maximum being over perturbations of clean samples instead of over all inputs. A ball of
    the Euclidean norm holds faint patterns all over the input as well as small loud patches. The
    balls are small and a margin that suffices counts as any larger one: what drives samples to a
    class with the least is the backdoor, if there is one; with more, any class can be reached by
    features of its own.

    Args:
        classifier: The network.
        clean: Clean samples; their range is that of valid inputs.
        decisions: Their classes, int64 ``(n,)``.
        classes: Number of classes.
        settings: ``sizes``, ``focus``, ``samples_per_pattern``, ``renewal_steps``, ``batch_size``.
        generator: Source of randomness, on the CPU.
        margin_unit: The mean clean margin, in logits.
    """

    def __init__(
        self,
        classifier: Classifier,
        clean: Points,
        decisions: Tensor,
        classes: int,
        settings: Settings,
        generator: torch.Generator,
        margin_unit: float,
    ) -> None:
        self._classifier = classifier
        self._clean = clean
        self._decisions = decisions
        self._classes = classes
        self._settings = settings
        self._generator = generator
        self._enough = _ENOUGH * margin_unit
        x = clean.values
        self._low, self._high = float(x.min()), float(x.max())
        # A size is a root mean square, as a share of the range of valid inputs.
        unit = (self._high - self._low) * math.sqrt(x[0].numel())
        norms = torch.tensor(settings.sizes, dtype=x.dtype, device=x.device) * unit
        self.at_a_time = min(classes, _MOST_CLASSES)
        self.norms = norms.repeat_interleave(self.at_a_time).reshape(-1, *[1] * (x.ndim - 1))
        self.targets = torch.empty(0, dtype=torch.int64)
        self.patterns = x[:0]
        self._queue = torch.empty(0, dtype=torch.int64)
        self._attacked: set[int] = set()
        self._margins = torch.zeros(classes)  # on the CPU, as the choices made by them

    @property
    def missed(self) -> int:
        """Number of classes that have not had their turn."""
        return self._classes - len(self._attacked)

    def renew(self, bounds: Mapping[str, Tensor]) -> None:
        """Climb some gradient steps, each on fresh clean samples of other classes."""
        if not len(self.patterns) or self._classes > self.at_a_time:
            self._draw()
        per_pattern = self._settings.samples_per_pattern
        together = max(1, 2 * self._settings.batch_size // per_pattern)
        for _ in range(self._settings.renewal_steps):
            for part in torch.split(torch.arange(len(self.patterns)), together):
                self._step(part.to(self.patterns.device), per_pattern, bounds)

    def batch(self, samples: Tensor) -> tuple[Points, Tensor]:
        """Clean samples by index ``(m,)``, each with a random pattern of another class on it."""
        picks = self._picks(self._decisions[samples]).to(samples.device)
        return self._attacked_by(self._clean[samples], self.patterns[picks]), self.targets[picks]

    def reached(self, targets: Tensor, margins: Tensor) -> None:
        """Follow the margins that each class's patterns reach."""
        targets, margins = targets.cpu(), margins.cpu()
        for target in set(targets.tolist()):
            mean = margins[targets == target].mean()
            if bool(mean.isfinite()):  # else learning ends by its loss, or goes on without
                self._margins[target] += _NEW * (mean - self._margins[target])

    def state(self) -> dict[str, Tensor]:
        """Patterns, their classes, whose turn it is, who had theirs, and margins reached."""
        return {
            "patterns": self.patterns,
            "targets": self.targets,
            "queue": self._queue,
            "attacked": torch.tensor(sorted(self._attacked), dtype=torch.int64),
            "margins": self._margins,
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Come back to a state."""
        self.patterns = state["patterns"].to(self.patterns.device)
        self.targets = state["targets"].to(self.patterns.device)
        self._queue, self._margins = state["queue"], state["margins"]
        self._attacked = set(state["attacked"].tolist())

    def _attacked_by(self, points: Points, patterns: Tensor) -> Points:
        return points.at((points.values + patterns).clamp(self._low, self._high))

    def _picks(self, decisions: Tensor) -> Tensor:
        """For each sample a random pattern of another class than its own, on the CPU."""
        focus = self._settings.focus
        targets = self.targets.cpu()
        chances = torch.ones(len(targets))
        if focus is not None:
            chances = torch.softmax(self._margins[targets] / focus, 0)
        chances = (1 - _EVEN) * chances / chances.sum() + _EVEN / len(chances)
        own = targets == decisions.cpu()[:, None]
        chances = chances.expand(own.shape).masked_fill(own, 0)
        return torch.multinomial(chances, 1, generator=self._generator).squeeze(1)

    def _draw(self) -> None:
        """Choose classes, all of them if they are few, else those whose turn it is; start from
        noise."""
        count = self.at_a_time
        if len(self._queue) < count:
            order = torch.randperm(self._classes, generator=self._generator)
            waiting = torch.isin(order, self._queue)
            self._queue = torch.cat([self._queue, order[~waiting], order[waiting]])
        chosen, self._queue = self._queue[:count].sort().values, self._queue[count:]
        self._attacked.update(chosen.tolist())
        self._margins.zero_()  # of classes that had their turn at other times, not comparable
        x = self._clean.values
        self.targets = chosen.repeat(len(self._settings.sizes)).to(x.device)
        shape = (len(self.targets), *x.shape[1:])
        noise = torch.randn(shape, generator=self._generator).to(x)
        self.patterns = noise * (self.norms / _norm(noise))

    def _step(self, part: Tensor, per_pattern: int, bounds: Mapping[str, Tensor]) -> None:
        patterns = self.patterns[part].clone().requires_grad_(True)
        targets = self.targets[part].repeat_interleave(per_pattern)
        clean = self._clean[self._others(targets)]
        attacks = self._attacked_by(clean, patterns.repeat_interleave(per_pattern, 0))
        gradient, _ = pattern_gradient(
            self._classifier, attacks, patterns, targets, self._enough, bounds
        )
        norms = self.norms[part]
        moved = self.patterns[part] + _STEP * norms * gradient / _norm(gradient)
        reach = self._high - self._low
        moved = moved.clamp(-reach, reach)
        self.patterns[part] = moved * (norms / _norm(moved)).clamp_max(1)

    def _others(self, targets: Tensor) -> Tensor:
        """Index of a random sample for each target, of another class where two draws find one."""
        first, second = (
            torch.randint(len(self._clean), targets.shape, generator=self._generator).to(
                targets.device
            )
            for _ in range(2)
        )
        return torch.where(self._decisions[first] == targets, second, first)


def _norm(patterns: Tensor) -> Tensor:
    """Euclidean norm of each pattern, kept above zero, in a shape that divides them."""
    norms: Tensor = torch.linalg.vector_norm(patterns.flatten(1), dim=1).clamp_min(1e-12)
    return norms.reshape(-1, *[1] * (patterns.ndim - 1))
