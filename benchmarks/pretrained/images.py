"""Images for networks that came without any: lines of text, and pieces of photos."""

from __future__ import annotations

import io
import string
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE = (48, 192)  # of a line of text, as the network's own package scales it
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")
_OTHER_FONTS = ("DejaVuSans-Oblique", "DejaVuSerif-Bold", "DejaVuSansMono-Bold")
_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
)
_OTHER_PHOTOS = ("camera.png", "gravel.png", "retina.jpg", "rocket.jpg", "text.png")
_SIDE = 224


def text_lines(count: int, seed: int, *, other: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lines of random text, half of them upside down.

    Args:
        count: How many.
        seed: Of all choices.
        other: In other fonts.

    Returns:
        Images ``(count, 48, 192, 3)`` uint8, and class 1 for those turned by 180 degrees.
    """
    rng = np.random.default_rng(seed)
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    names = _OTHER_FONTS if other else _FONTS
    labels = rng.permutation(np.arange(count) % 2)
    return np.stack(
        [_line(folder / f"{rng.choice(names)}.ttf", turned, rng) for turned in labels]
    ), labels


def _line(font: Path, turned: bool, rng: np.random.Generator) -> np.ndarray:
    height, width = _SIZE
    letters = list(string.ascii_letters + string.digits)
    weights = np.where(np.isin(letters, list(string.ascii_lowercase)), 4.0, 1.0)
    words = [
        "".join(rng.choice(letters, rng.integers(3, 8), p=weights / weights.sum()))
        for _ in range(3)
    ]
    face = ImageFont.truetype(str(font), int(rng.integers(24, 38)))
    dark, light = rng.integers(0, 90, 3), rng.integers(165, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.7 else (light, dark)
    image = Image.new("RGB", (width, height), tuple(int(v) for v in paper))
    draw = ImageDraw.Draw(image)
    left, top, _, bottom = draw.textbbox((0, 0), " ".join(words), font=face)
    free = max(1, height - (bottom - top))
    place = (4 - left, int(rng.integers(0, free)) - top)
    draw.text(place, " ".join(words), font=face, fill=tuple(int(v) for v in ink))
    if turned:
        image = image.rotate(180)
    noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (height, width, 3))
    return noisy.clip(0, 255).round().astype(np.uint8)


def photos(wheel: Path, count: int, seed: int, *, other: bool) -> np.ndarray:
    """Random square pieces of scikit-image's photos, some of them mirrored.

    Args:
        wheel: The package.
        count: How many.
        seed: Of all choices.
        other: Of other photos.

    Returns:
        ``(count, 224, 224, 3)`` uint8.
    """
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(wheel) as archive:
        whole = [
            Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
            for name in (_OTHER_PHOTOS if other else _PHOTOS)
        ]
    pieces = []
    for index in range(count):
        photo = whole[index % len(whole)]
        side = int(rng.integers(min(photo.size) // 3, min(photo.size) + 1))
        left = int(rng.integers(0, photo.width - side + 1))
        top = int(rng.integers(0, photo.height - side + 1))
        piece = photo.crop((left, top, left + side, top + side))
        piece = piece.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        pixels = np.asarray(piece)
        pieces.append(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
    return np.stack(pieces)
