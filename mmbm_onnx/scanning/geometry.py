"""Three measures of how large a pattern is: spread all over the input, or gathered in few places or
few waves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Norm = Literal["l2", "l1", "waves"]


class Geometry(Protocol):
    """A norm of patterns ``(p, *shape)``, in a unit that is the same for inputs of every size."""

    @property
    def norm(self) -> Norm:
        """Its name."""

    @property
    def start(self) -> float:
        """A size to begin with."""

    def step(self, sizes: Tensor) -> Tensor:
        """How far a pattern of each size ``(p,)`` moves at most: Euclidean lengths ``(p,)``."""

    def fit(self, patterns: Tensor, sizes: Tensor) -> Tensor:
        """Patterns brought to sizes ``(p,)``."""


@dataclass(frozen=True)
class Spread:
    """The Euclidean norm, which faint patterns all over the input are small in. A size is the root
    mean square, as a share of the range of valid inputs.

    Args:
        shape: Of a pattern.
        reach: Width of the range of valid inputs.
    """

    shape: tuple[int, ...]
    reach: float

    norm: Norm = "l2"
    start: float = 0.05

    def step(self, sizes: Tensor) -> Tensor:
        """See ``Geometry``."""
        return 0.4 * self._lengths(sizes)

    def fit(self, patterns: Tensor, sizes: Tensor) -> Tensor:
        """Patterns on the spheres of these sizes."""
        lengths = self._lengths(sizes) / euclidean(patterns)
        return patterns * as_factors(lengths, patterns)

    def _lengths(self, sizes: Tensor) -> Tensor:
        return sizes * (self.reach * math.sqrt(math.prod(self.shape)))


@dataclass(frozen=True)
class Gathered:
    """The sum over places of the Euclidean norm there, which small loud patches are small in, as
    the L1 norm of Neural Cleanse's mask is (Wang et al. 2019, equation 3). A size is the share of
    all places that such a sum could change in full.

    Args:
        shape: Of a pattern.
        reach: Width of the range of valid inputs.
        axis: Of a pattern's channels, which are one place together; None: every number is a place.
    """

    shape: tuple[int, ...]
    reach: float
    axis: int | None

    norm: Norm = "l1"
    start: float = 0.04

    def step(self, sizes: Tensor) -> Tensor:
        """See ``Geometry``."""
        # The length of a pattern that is loud to the full in so many places and nothing elsewhere.
        return 0.6 * torch.sqrt(self._sums(sizes) * self._loudest)

    def fit(self, patterns: Tensor, sizes: Tensor) -> Tensor:
        """Patterns projected into the balls of these sizes."""
        return into_ball(patterns, self._sums(sizes), self.axis)

    @property
    def _loudest(self) -> float:
        """What one place contributes at most."""
        return self.reach * math.sqrt(_channels(self.shape, self.axis))

    def _sums(self, sizes: Tensor) -> Tensor:
        places = math.prod(self.shape) // _channels(self.shape, self.axis)
        return sizes * (places * self._loudest)


@dataclass(frozen=True)
class Waves:
    """The sum over frequencies of the Euclidean norm of the discrete cosine transform there, which
    gratings and ramps are small in. A size is the sum of the waves' root mean squares, as a share
    of the range of valid inputs.

    Args:
        shape: Of a pattern.
        reach: Width of the range of valid inputs.
        axis: Of a pattern's channels, which share a frequency; None where there are none.
        along: Axes that waves run along.
    """

    shape: tuple[int, ...]
    reach: float
    axis: int | None
    along: tuple[int, ...]

    norm: Norm = "waves"
    start: float = 0.3

    def step(self, sizes: Tensor) -> Tensor:
        """See ``Geometry``."""
        return 0.3 * self._sums(sizes)

    def fit(self, patterns: Tensor, sizes: Tensor) -> Tensor:
        """Patterns whose waves are projected into the balls of these sizes."""
        bases = {axis: cosines(self.shape[axis]).to(patterns) for axis in self.along}
        waves = patterns
        for axis, basis in bases.items():
            waves = _along(waves, basis, axis + 1)
        waves = into_ball(waves, self._sums(sizes), self.axis)
        for axis, basis in bases.items():
            waves = _along(waves, basis.T, axis + 1)
        return waves

    def _sums(self, sizes: Tensor) -> Tensor:
        return sizes * (self.reach * math.sqrt(math.prod(self.shape)))


def into_ball(values: Tensor, sums: Tensor, axis: int | None) -> Tensor:
    """Project groups of numbers into balls of the sum of their Euclidean norms (Duchi et al. 2008).

    Args:
        values: ``(p, *shape)``.
        sums: What the norms of each row's groups may sum to, ``(p,)``.
        axis: Of ``shape``, along which numbers are a group; None: each is one by itself.
    """
    if axis is None:
        loud = values.abs()
    else:
        loud = torch.linalg.vector_norm(values, dim=axis + 1, keepdim=True)
    flat = loud.flatten(1)
    ordered = flat.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - sums[:, None]
    count = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered * count > excess).sum(1, keepdim=True).clamp_min(1)
    cut = (excess.gather(1, last - 1) / last).clamp_min(0)
    kept = (flat - cut).clamp_min(0) / flat.clamp_min(1e-12)
    return values * kept.reshape(loud.shape)


def cosines(length: int) -> Tensor:
    """The orthonormal discrete cosine transform (type II) as a matrix ``(length, length)``."""
    places = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(torch.pi / length * torch.outer(places, places + 0.5))
    basis[0] /= math.sqrt(2)
    return basis * math.sqrt(2 / length)


def _along(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    turned: Tensor = torch.tensordot(values, matrix, dims=([axis], [1]))
    return turned.movedim(-1, axis)


def _channels(shape: tuple[int, ...], axis: int | None) -> int:
    return 1 if axis is None else shape[axis]


def euclidean(patterns: Tensor) -> Tensor:
    """Euclidean norm of each pattern ``(p,)``, kept above zero."""
    norms: Tensor = torch.linalg.vector_norm(patterns.flatten(1), dim=1)
    return norms.clamp_min(1e-12)


def as_factors(values: Tensor, patterns: Tensor) -> Tensor:
    """One value per pattern ``(p,)`` in a shape that multiplies patterns."""
    return values.reshape(-1, *[1] * (patterns.ndim - 1))
