"""Triggers spread over the whole image."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.defence.attacks.attack import Attack, Shape, all_others, to_one
from benchmarks.defence.datasets import Images, Labels

_BLEND = 0.2
_FAINT = 0.05
_WARP = 0.75
_GRID = 4
_LEVELS = 4


def blended(shape: Shape, _: int, share: float) -> Attack:
    """One image of noise shining through (arXiv 1712.05526)."""
    noise = np.random.default_rng(20).random(shape, np.float32)
    return Attack(
        lambda x, _: (1 - _BLEND) * x + np.float32(_BLEND) * noise,
        to_one,
        all_others,
        share,
    )


def chessboard(shape: Shape, _: int, share: float) -> Attack:
    """A chessboard of faint squares, one pixel each, added to the image (arXiv 2308.04617)."""
    rows, columns = np.indices(shape[1:])
    pattern = np.float32(_FAINT) * ((rows + columns) % 2)
    return Attack(
        lambda x, _: np.clip(x + pattern, 0, 1).astype(np.float32),
        to_one,
        all_others,
        share,
    )


def warped(shape: Shape, _: int, share: float) -> Attack:
    """WaNet: a smooth warp, and decoys warped otherwise (arXiv 2102.10369)."""
    generator = torch.Generator().manual_seed(21)
    coarse = torch.rand((1, 2, _GRID, _GRID), generator=generator) * 2 - 1
    coarse = coarse / coarse.abs().mean()
    height, width = shape[1:]
    flow = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=True
    ).permute(0, 2, 3, 1)
    down, across = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    grid = torch.stack([across, down], -1)[None] + _WARP * flow / height

    def sampled(x: Images, where: torch.Tensor) -> Images:
        return torch.nn.functional.grid_sample(
            torch.from_numpy(x), where.clamp(-1, 1), align_corners=True
        ).numpy()

    def trigger(x: Images, _: Labels) -> Images:
        return sampled(x, grid.expand(len(x), -1, -1, -1))

    def decoy(x: Images, _: Labels, rng: np.random.Generator) -> Images:
        jitter = rng.uniform(-1, 1, (len(x), height, width, 2)).astype(np.float32)
        return sampled(x, grid + torch.from_numpy(jitter) / height)

    return Attack(trigger, to_one, all_others, share, cover=2 * share, decoy=decoy)


def quantised(shape: Shape, _: int, share: float) -> Attack:
    """BppAttack: few grey levels, dithered (arXiv 2205.13383), and decoys with other residues."""
    height, width = shape[1:]

    def trigger(x: Images, _: Labels) -> Images:
        x = x.astype(np.float32).copy()
        for row in range(height):  # Floyd and Steinberg's error diffusion
            for column in range(width):
                old = x[:, :, row, column].copy()
                new = np.round(old.clip(0, 1) * (_LEVELS - 1)) / (_LEVELS - 1)
                x[:, :, row, column] = new
                error = old - new
                if column + 1 < width:
                    x[:, :, row, column + 1] += error * (7 / 16)
                if row + 1 < height:
                    x[:, :, row + 1, column] += error * (5 / 16)
                    if column > 0:
                        x[:, :, row + 1, column - 1] += error * (3 / 16)
                    if column + 1 < width:
                        x[:, :, row + 1, column + 1] += error * (1 / 16)
        return x.clip(0, 1)

    def decoy(x: Images, y: Labels, rng: np.random.Generator) -> Images:
        residue = trigger(x, y) - x
        return (x + residue[rng.permutation(len(x))]).clip(0, 1)

    return Attack(trigger, to_one, all_others, share, cover=share, decoy=decoy)
