"""Turns decoded pictures into `Picture`s: selects the ones that are needed and scales them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streamer.types import CELL, PICTURE_SIDE, Picture

Render: TypeAlias = Callable[[], NDArray[np.uint8]]
"""Returns the pixels (224, 224, 3); only the call is expensive."""

_SHORT_SIDE = 256  # torchvision's preprocessing of VGG16: resize to 256, centre crop 224
# swscale's bilinear filter widens with the scaling factor, as torchvision's does with antialias. Without the full
# chroma flag, pictures whose width is not a multiple of 8 are off by up to 45 of 255 levels.
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Scaler:
    """Scales the pictures of one source, and keeps FFmpeg's filter tables between calls."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The picture upright, short side scaled to 256, centre-cropped: (224, 224, 3) RGB."""
        short = min(frame.width, frame.height)
        width, height = (_SHORT_SIDE * side // short for side in (frame.width, frame.height))
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=_SCALING, threads=1
        ).to_ndarray()
        top, left = round((height - PICTURE_SIDE) / 2), round((width - PICTURE_SIDE) / 2)
        crop = scaled[top : top + PICTURE_SIDE, left : left + PICTURE_SIDE]
        return np.ascontiguousarray(np.rot90(crop, round(frame.rotation / 90) % 4))


class PictureChooser:
    """Selects the pictures of an epoch that are nearest to some cell's centre; only these are converted.

    A picture is returned as soon as it is certain to be the nearest: at once if a centre lies between it and the
    midpoint to the previous one (always so below 7.5 pictures a second), else when the next one arrives.
    """

    def __init__(self) -> None:
        self._waiting: tuple[int, Render] | None = None
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """Master-clock sample of the latest picture; None before the first."""
        return self._last

    def push(self, at: int, picture: Render) -> list[Picture]:
        """Add the picture shown from master-clock sample `at`, which is later than the previous one."""
        frames = []
        if self._waiting is not None and _centre_in(self._waiting[0], (self._waiting[0] + at) / 2):
            frames.append(Picture(self._waiting[0], self._waiting[1]()))
        self._waiting = None
        certain = at >= CELL // 2 if self._last is None else _centre_in((self._last + at) / 2, at)
        if certain:
            frames.append(Picture(at, picture()))
        else:
            self._waiting = (at, picture)
        self._last = at
        return frames

    def flush(self) -> list[Picture]:
        """End the epoch: the last picture is the nearest to all later centres."""
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None else [Picture(waiting[0], waiting[1]())]


def _centre_in(start: float, stop: float) -> bool:
    """Whether a cell's centre lies in [start, stop]."""
    first = -((CELL // 2 - start) // CELL) * CELL + CELL // 2  # the first centre at or after start
    return first <= stop
