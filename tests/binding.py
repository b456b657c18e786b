"""Bounds that bind: below what many activations are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from mmbm_onnx.types import Site


def binding_bounds(sites: Iterable[Site], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Three fifths of what a fifth of each channel's values exceed, ``(channels,)``, for each site
    that has values."""
    bounds = {}
    for site in sites:
        if site.tensor not in values:  # in a branch that no sample takes
            continue
        assert site.channel_axis is not None, site
        channels = values[site.tensor].movedim(site.channel_axis, 0).flatten(1)
        bounds[site.tensor] = 0.6 * channels.quantile(0.8, dim=1).clamp_min(1e-3)
    return bounds
