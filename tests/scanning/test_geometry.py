"""Norms of patterns: what their sizes mean, and what projecting onto them does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from mmbm_onnx.scanning.geometry import Gathered, Spread, Waves, cosines, into_ball

SHAPE = (3, 6, 8)
REACH = 2.0


@pytest.fixture
def patterns() -> torch.Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(0)).double()


def test_a_spread_size_is_the_root_mean_square_over_the_range(patterns) -> None:
    found = Spread(SHAPE, REACH).fit(patterns, torch.tensor([0.1, 0.02]).double())
    rms = found.flatten(1).square().mean(1).sqrt()
    assert torch.allclose(rms, torch.tensor([0.2, 0.04]).double())
    assert torch.allclose(found[0] / found[0].norm(), patterns[0] / patterns[0].norm())


def test_a_gathered_size_is_the_share_of_places_changed_in_full() -> None:
    full = torch.zeros((1, *SHAPE)).double()
    full[0, :, 2, 3] = REACH  # one of 48 places
    geometry = Gathered(SHAPE, REACH, 0)
    size = torch.tensor([1 / 48]).double()
    assert torch.allclose(geometry.fit(full, size), full)
    assert torch.allclose(geometry.fit(full, size / 2), full / 2)


def test_gathering_keeps_loud_places_and_drops_faint_ones(patterns) -> None:
    found = Gathered(SHAPE, REACH, 0).fit(patterns, torch.tensor([0.05, 0.05]).double())
    loud = patterns.norm(dim=1).flatten(1)
    left = found.norm(dim=1).flatten(1)
    assert ((left > 0).sum(1) < 30).all()  # of 48
    assert (loud.argmax(1) == left.argmax(1)).all()
    # Places are shortened, not turned.
    kept = left[0].reshape(6, 8) > 0
    before, after = patterns[0][:, kept], found[0][:, kept]
    cosine = (before * after).sum(0) / (before.norm(dim=0) * after.norm(dim=0))
    assert torch.allclose(cosine, torch.ones_like(cosine))


def test_a_waves_size_is_the_sum_of_its_waves_root_mean_squares() -> None:
    shape = (1, 6, 8)
    wave = (cosines(6)[2][:, None] * cosines(8)[3][None])[None, None]
    geometry = Waves(shape, REACH, 0, (1, 2))
    rms = float(wave.square().mean().sqrt())
    assert torch.allclose(geometry.fit(wave, torch.tensor([rms / REACH]).double()), wave)
    half = geometry.fit(wave, torch.tensor([rms / REACH / 2]).double())
    assert torch.allclose(half, wave / 2)


def test_the_cosine_transform_is_scipys(patterns) -> None:
    ours = torch.einsum("fh,gw,pchw->pcfg", cosines(6), cosines(8), patterns)
    assert np.allclose(ours.numpy(), dctn(patterns.numpy(), axes=(2, 3), norm="ortho"))


@pytest.mark.parametrize("along", [(1, 2), (2,)])
def test_waves_that_fit_are_left_alone(patterns, along) -> None:
    geometry = Waves(SHAPE, REACH, 0, along)
    assert torch.allclose(geometry.fit(patterns, torch.tensor([1e3, 1e3]).double()), patterns)


def test_projection_finds_the_nearest_point_of_the_ball() -> None:
    """All that is left is shorter by the same cut, and nothing longer than that is dropped."""
    values = torch.tensor([[3.0, -1.0, 0.5, 2.0]]).double()
    found = into_ball(values, torch.tensor([2.5]).double(), None)
    assert torch.allclose(found, torch.tensor([[1.75, 0, 0, 0.75]]).double())


def test_a_point_inside_the_ball_stays_where_it_is() -> None:
    values = torch.tensor([[0.3, -0.2]])
    assert torch.equal(into_ball(values, torch.tensor([5.0]), None), values)
    assert torch.equal(into_ball(torch.zeros(1, 2), torch.tensor([1.0]), None), torch.zeros(1, 2))
