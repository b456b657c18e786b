"""Statistics of each channel's activations on clean samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.types import Granularity, Site


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """Of one site over clean samples and positions; float32, shape ``(channels,)`` or ``()``."""

    mean: Tensor
    std: Tensor
    maximum: Tensor


def per_channel(site: Site, granularity: Granularity) -> bool:
    """Whether a site takes one bound per channel."""
    return granularity == "channel" and site.channel_axis is not None


@torch.no_grad()
def activation_statistics(
    classifier: Classifier,
    x: Tensor,
    sites: Sequence[Site],
    granularity: Granularity,
    batch_size: int,
) -> dict[str, ActivationStatistics]:
    """Mean, standard deviation and maximum at every site, of the original network.

    Args:
        classifier: The network.
        x: Clean samples ``(n, ...)``.
        sites: Where to look.
        granularity: Per channel where a site has a channel axis, or per tensor.
        batch_size: Samples per forward pass.

    Returns:
        Site name to statistics, without sites in an If branch that no sample takes.
    """
    count: dict[str, float] = {}
    total: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}
    names = [site.tensor for site in sites]
    for batch in torch.split(x, batch_size):
        _, values = classifier.logits(batch, taps=names)
        for site in sites:
            if site.tensor not in values:
                continue
            value = _channels_first(values[site.tensor], site, granularity).double()
            new = (value.sum(1), value.square().sum(1), value.amax(1))
            if site.tensor in total:
                total[site.tensor] += new[0]
                squares[site.tensor] += new[1]
                highest[site.tensor] = torch.maximum(highest[site.tensor], new[2])
            else:
                total[site.tensor], squares[site.tensor], highest[site.tensor] = new
            count[site.tensor] = count.get(site.tensor, 0.0) + value.shape[1]
    found = {}
    for site in sites:
        name = site.tensor
        if name not in count:
            continue
        mean = total[name] / count[name]
        variance = (squares[name] / count[name] - mean.square()).clamp_min(0)
        parts = (mean, variance.sqrt(), highest[name])
        if not per_channel(site, granularity):
            parts = (parts[0][0], parts[1][0], parts[2][0])
        found[name] = ActivationStatistics(*(part.float() for part in parts))
    return found


@torch.no_grad()
def reached_sites(
    classifier: Classifier, x: Tensor, sites: Sequence[Site], batch_size: int
) -> tuple[Site, ...]:
    """The sites that some sample reaches; in an If branch that none takes, there is nothing to
    learn a bound from.

    Args:
        classifier: The network.
        x: Clean samples ``(n, ...)``.
        sites: Where to look.
        batch_size: Samples per forward pass.
    """
    inner = [site.tensor for site in sites if site.scope]
    found = {site.tensor for site in sites if not site.scope}
    if inner:
        for batch in torch.split(x, batch_size):
            found |= classifier.logits(batch, taps=inner)[1].keys()
    return tuple(site for site in sites if site.tensor in found)


@dataclass(frozen=True, slots=True)
class Above:
    """How many of a site's activations lie above their bound.

    Attributes:
        counts: Under each bound, float64 ``(bounds,)``.
        each: Activations that each bound is for.
    """

    counts: Tensor
    each: float

    @property
    def share(self) -> float:
        """Of all activations, in [0, 1]; 0 where there is none."""
        return float(self.counts.sum()) / max(self.each * len(self.counts), 1.0)

    @property
    def shares(self) -> Tensor:
        """Of the activations of each bound, float64 ``(bounds,)``."""
        return self.counts / max(self.each, 1.0)


@torch.no_grad()
def above_bounds(
    classifier: Classifier,
    x: Tensor,
    sites: Sequence[Site],
    bounds: Mapping[str, Tensor],
    batch_size: int,
) -> dict[str, Above]:
    """Activations on clean samples above their bound, site by site; none where no sample takes the
    branch it lies in.

    Args:
        classifier: The network, which is run without bounds.
        x: Clean samples ``(n, ...)``.
        sites: Where to look.
        bounds: Site name to bounds, ``(channels,)`` or ``()``.
        batch_size: Samples per forward pass.
    """
    counts = {
        site.tensor: torch.zeros(bounds[site.tensor].numel(), dtype=torch.float64) for site in sites
    }
    each = {site.tensor: 0.0 for site in sites}
    for batch in torch.split(x, batch_size):
        _, values = classifier.logits(batch, taps=list(counts))
        for site in sites:
            if site.tensor not in values:
                continue
            bound = bounds[site.tensor]
            granularity: Granularity = "channel" if bound.ndim else "tensor"
            value = _channels_first(values[site.tensor], site, granularity)
            above = (value > bound.reshape(-1, 1)).sum(1)
            counts[site.tensor] += above.to("cpu", torch.float64)
            each[site.tensor] += value.shape[1]
    return {name: Above(counts[name], each[name]) for name in counts}


def _channels_first(value: Tensor, site: Site, granularity: Granularity) -> Tensor:
    """``(channels, everything else)``, or ``(1, everything)`` for one bound per tensor."""
    if not per_channel(site, granularity):
        return value.reshape(1, -1)
    assert site.channel_axis is not None
    return value.movedim(site.channel_axis, 0).flatten(1)
