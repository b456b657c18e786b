"""Adam (Kingma and Ba, arXiv 1412.6980) for a handful of small tensors.

The same as ``torch.optim.Adam``, whose first use in a process imports torch's compiler. That takes
seventy MiB, and two seconds: more than learning itself does on small networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_DECAY = 0.9, 0.999  # of the means of gradients and of their squares
_SMALL = 1e-8


class Adam:
    """Steps along means of gradients, each in units of its own size.

    Attributes:
        rate: Of learning; may be changed between steps.

    Args:
        parameters: Leaves that require gradients; changed in place.
        rate: Of learning.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self.rate = rate
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(one) for one in parameters]
        self._squares = [torch.zeros_like(one) for one in parameters]
        self._steps = [0] * len(parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step down the gradients, one per parameter; without one, a parameter stays."""
        first, second = _DECAY
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            self._steps[index] += 1
            mean, square = self._means[index], self._squares[index]
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            # Both begin at zero; that is made up for.
            size = self.rate / (1 - first ** self._steps[index])
            root = (1 - second ** self._steps[index]) ** 0.5
            self._parameters[index].addcdiv_(mean, (square.sqrt() / root).add_(_SMALL), value=-size)

    def state(self) -> dict[str, Tensor]:
        """What ``restore`` takes to come back to this point."""
        found = {"steps": torch.tensor(self._steps)}
        for index, (mean, square) in enumerate(zip(self._means, self._squares, strict=True)):
            found |= {f"mean/{index}": mean, f"square/{index}": square}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Come back to a state, of the same parameters."""
        self._steps = state["steps"].tolist()
        for index, (mean, square) in enumerate(zip(self._means, self._squares, strict=True)):
            mean.copy_(state[f"mean/{index}"])
            square.copy_(state[f"square/{index}"])
