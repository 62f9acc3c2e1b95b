"""Draws rooms as a camera in a corner sees them: walls, a floor, furniture, a window, and no two alike."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from streamer.types import Floats

_WIDTH, _HEIGHT = 480, 360
_GRAIN_PX = 24
"""Side of a patch of the texture."""


def room(seed: int) -> Image.Image:
    """The room that belongs to `seed`: RGB, 480 x 360."""
    rng = np.random.default_rng(seed)
    wall, floor = (_colour(rng) for _ in range(2))
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), wall)
    draw = ImageDraw.Draw(picture)
    horizon = int(_HEIGHT * rng.uniform(0.4, 0.75))
    slope = int(rng.integers(-40, 41))
    corner = int(rng.integers(_WIDTH))
    draw.polygon(
        [(0, horizon), (corner, horizon + slope), (_WIDTH, horizon), (_WIDTH, _HEIGHT), (0, _HEIGHT)], fill=floor
    )
    draw.rectangle((corner, 0, _WIDTH, horizon + slope // 2), fill=_shaded(wall, rng.uniform(0.75, 1.1)))
    if rng.random() < 0.5:
        _window(draw, rng, horizon)
    for _ in range(int(rng.integers(2, 8))):
        _furniture(draw, rng, horizon)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))), np.float32)
    lit = np.clip(pixels * _light(rng) + _texture(rng), 0, 255)
    return Image.fromarray(lit.astype(np.uint8))


def _window(draw: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int) -> None:
    left, top = int(rng.integers(_WIDTH)), int(rng.integers(5, max(6, horizon // 2)))
    width, height = int(rng.integers(40, 140)), int(rng.integers(40, 130))
    bright = tuple(int(one) for one in rng.integers(190, 256, 3))
    draw.rectangle((left, top, left + width, top + height), fill=bright, outline=_colour(rng), width=4)
    draw.line((left + width // 2, top, left + width // 2, top + height), fill=_colour(rng), width=3)


def _furniture(draw: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int) -> None:
    """A box that stands on the floor, with a lighter top and perhaps drawers; or something round on it."""
    bottom = int(rng.uniform(horizon, _HEIGHT + 30))
    width, height = int(rng.integers(30, 180)), int(rng.integers(25, 170))
    left = int(rng.integers(-40, _WIDTH))
    colour = _colour(rng)
    if rng.random() < 0.2:
        draw.ellipse((left, bottom - height, left + width, bottom), fill=colour)
        return
    draw.rectangle((left, bottom - height, left + width, bottom), fill=colour)
    draw.polygon(
        [
            (left, bottom - height),
            (left + width, bottom - height),
            (left + width - 12, bottom - height - 10),
            (left + 12, bottom - height - 10),
        ],
        fill=_shaded(colour, 1.25),
    )
    for shelf in range(int(rng.integers(0, 4))):
        y = bottom - height + (shelf + 1) * height // 5
        draw.line((left, y, left + width, y), fill=_shaded(colour, 0.7), width=2)


def _light(rng: np.random.Generator) -> Floats:
    """The share of the light that reaches each pixel, (height, width, 1): a lamp somewhere, and dark corners."""
    x, y = np.meshgrid(np.linspace(0, 1, _WIDTH, dtype=np.float32), np.linspace(0, 1, _HEIGHT, dtype=np.float32))
    away = (x - rng.uniform(-0.2, 1.2)) ** 2 + (y - rng.uniform(-0.2, 0.8)) ** 2
    return np.asarray((rng.uniform(0.35, 0.8) + 0.6 * np.exp(-away / rng.uniform(0.1, 0.8)))[..., None], np.float32)


def _texture(rng: np.random.Generator) -> Floats:
    """Uneven surfaces: coarse and fine patches of a few levels, (height, width, 1)."""
    levels = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for patch, strength in ((_GRAIN_PX, 5.0), (_GRAIN_PX // 6, 3.0)):
        grid = np.float32(strength) * rng.standard_normal((_HEIGHT // patch, _WIDTH // patch), np.float32)
        smooth = Image.fromarray(grid).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        levels += np.asarray(smooth)
    return levels[..., None]


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A muted colour, as most things in a home have."""
    grey = rng.uniform(40, 210)
    red, green, blue = np.clip(grey + rng.normal(0, 22, 3), 0, 255)
    return int(red), int(green), int(blue)


def _shaded(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(one * share)) for one in colour)
    return red, green, blue
