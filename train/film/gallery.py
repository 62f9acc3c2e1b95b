"""Decodes the photos and real clips that a corpus shows, and keeps the latest in memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from streamer.errors import EarwitnessError
from streamer.media.source import open_media
from streamer.types import SAMPLE_RATE_HZ, Picture, Want

_LONG_SIDE = 640
"""Pixels; larger photos are scaled down, which leaves enough to zoom in."""
_CLIP_PICTURES = 120
"""Of the beginning of a real clip: 8 s at the rate at which the daemon sees it. They take 18 MB."""
_PHOTOS, _CLIPS = 128, 8
"""Kept in memory: at most about 120 + 140 MB, because most photos are smaller than they may be."""
_GREY = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Clip:
    """The pictures of a real clip, as the daemon's reader yields them."""

    at_s: NDArray[np.float64]  # (n,), from 0
    pixels: tuple[NDArray[np.uint8], ...]  # n of (224, 224, 3), RGB


@lru_cache(_PHOTOS)
def open_photo(path: Path) -> Image.Image:
    """The photo upright, RGB, with a long side of 640 pixels at most.

    Raises:
        EarwitnessError: it can't be decoded.

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice that is an error
            with Image.open(path) as file:
                file.draft("RGB", (_LONG_SIDE, _LONG_SIDE))  # JPEG: decode at a fraction of the size
                upright = ImageOps.exif_transpose(file)
                upright.thumbnail((_LONG_SIDE, _LONG_SIDE), Image.Resampling.LANCZOS)
                if "A" in upright.getbands() or "transparency" in upright.info:
                    over = Image.new("RGBA", upright.size, (*_GREY, 255))
                    upright = Image.alpha_composite(over, upright.convert("RGBA"))
                photo = upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EarwitnessError(f"{path}: is not a picture that can be decoded: {error}: remove or replace it") from None
    if min(photo.size) < 2:
        raise EarwitnessError(f"{path}: has only {photo.width} x {photo.height} pixels: remove or replace it")
    return photo


@lru_cache(_CLIPS)
def open_clip(path: Path, pictures: int = _CLIP_PICTURES) -> Clip:
    """The first `pictures` pictures of a real clip.

    Raises:
        SourceError: it can't be read.
        EarwitnessError: it has no pictures.

    """
    with open_media(str(path), Want(pictures=True)) as media:
        found = list(islice((item for item in media if isinstance(item, Picture)), pictures))
    if not found:
        raise EarwitnessError(f"{path}: has no pictures: remove it, or replace it by a clip that has")
    at_s = np.array([one.at for one in found]) / SAMPLE_RATE_HZ
    return Clip(at_s - at_s[0], tuple(one.pixels for one in found))
