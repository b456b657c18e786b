"""A colour data set made on the spot: ten shapes, turned, coloured and half hidden, 32x32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NAMES = (
    "circle",
    "ring",
    "square",
    "frame",
    "triangle",
    "star",
    "cross",
    "crescent",
    "bars",
    "heart",
)
SIDE = 32
_FINE = 2  # samples per pixel and axis

Array = npt.NDArray[np.float32]


def render(count: int, rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.int64]]:
    """Images ``(count, 3, 32, 32)`` float32 in [0, 1] and their classes ``(count,)`` int64.

    Every image has a two-colour background that shades from one corner to another, a shape of
    random place, size, angle, proportion and colour, a bar of a random colour that hides part of
    it, and noise.
    """
    labels = rng.integers(0, len(NAMES), count)
    x = np.stack([_image(NAMES[label], rng) for label in labels])
    return x, labels.astype(np.int64)


def _image(name: str, rng: np.random.Generator) -> Array:
    axis = (np.arange(SIDE * _FINE, dtype=np.float32) + 0.5) / (SIDE * _FINE) * 2 - 1
    across, down = np.meshgrid(axis, axis)
    shade = _turned(across, down, rng.uniform(0, 2 * np.pi))[0][..., None] / 2 + 0.5
    first, second = rng.uniform(0, 1, (2, 3))
    picture = first * shade + second * (1 - shade)

    colour = _unlike((first + second) / 2, rng)
    u, v = _turned(
        across - rng.uniform(-0.25, 0.25),
        down - rng.uniform(-0.25, 0.25),
        rng.uniform(-0.45, 0.45),
    )
    size = rng.uniform(0.45, 0.8)
    inside = _inside(name, u / size, v / (size * rng.uniform(0.8, 1.25)))
    picture = np.where(inside[..., None], colour, picture)

    u, _ = _turned(across, down, rng.uniform(0, np.pi))
    place, width = rng.uniform(-0.7, 0.7), rng.uniform(0.04, 0.12)
    picture = np.where((np.abs(u - place) < width)[..., None], rng.uniform(0, 1, 3), picture)

    pixels = picture.reshape(SIDE, _FINE, SIDE, _FINE, 3).mean((1, 3))
    pixels += rng.normal(0, rng.uniform(0.01, 0.06), pixels.shape)
    pixels = np.round(pixels.clip(0, 1) * 255) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def _turned(u: Array, v: Array, angle: float) -> tuple[Array, Array]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * u + sin * v, cos * v - sin * u


def _unlike(other: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random colour that can be told from another."""
    while True:
        colour = rng.uniform(0, 1, 3)
        if np.abs(colour - other).max() > 0.4:
            return colour


def _inside(name: str, u: Array, v: Array) -> npt.NDArray[np.bool_]:
    """Which points lie in the shape; it fills about [-1, 1] in both directions."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    largest = np.maximum(np.abs(u), np.abs(v))
    if name == "circle":
        return radius < 0.9
    if name == "ring":
        return (radius < 0.95) & (radius > 0.55)
    if name == "square":
        return largest < 0.8
    if name == "frame":
        return (largest < 0.85) & (largest > 0.5)
    if name == "triangle":
        return (v < 0.75) & (v > 2 * np.abs(u) - 0.95)
    if name == "star":
        return radius < 0.65 + 0.33 * np.cos(5 * (angle + np.pi / 2))
    if name == "cross":
        return (largest < 0.9) & (np.minimum(np.abs(u), np.abs(v)) < 0.3)
    if name == "crescent":
        return (radius < 0.95) & (np.hypot(u - 0.45, v) > 0.7)
    if name == "bars":
        return (largest < 0.85) & (np.abs(np.abs(v) - 0.55) < 0.3)
    if name == "heart":
        return (u**2 + (0.1 - v) ** 2 - 0.5) ** 3 < u**2 * (0.1 - v) ** 3 * 1.5
    raise ValueError(name)
