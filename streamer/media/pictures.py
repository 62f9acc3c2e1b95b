"""Decoded pictures to `Picture`s: which of them are needed, and how they are scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streamer.types import CELL, PICTURE_SIDE, Picture

Render: TypeAlias = Callable[[], NDArray[np.uint8]]
"""Gives the pixels (224, 224, 3) when asked; asking is what costs."""

_SHORT_SIDE = 256  # torchvision's preprocessing of VGG16: resize to 256, centre crop 224
# swscale's bilinear filter grows with the scaling factor, as torchvision's does with antialias. Without the full chroma
# flag, widths that are no multiple of 8 come out up to 45 of 255 levels off.
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Scaler:
    """Scales the pictures of one source; keeps FFmpeg's filter tables from one to the next."""

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
    """Of all pictures of an epoch, those that are nearest to the centre of some cell; only these are converted.

    A picture comes out as soon as it is certain to be the nearest: at once if a centre lies between it and the middle
    of the way back to the one before (always so below 7.5 pictures a second), else when the next one has come.
    """

    def __init__(self) -> None:
        self._waiting: tuple[int, Render] | None = None
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """Master-clock sample of the newest picture."""
        return self._last

    def push(self, at: int, picture: Render) -> list[Picture]:
        """Take in the picture shown from master-clock sample `at` on, later than the one before."""
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
        """The epoch ends: the last picture is the nearest to all that follows."""
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None else [Picture(waiting[0], waiting[1]())]


def _centre_in(start: float, stop: float) -> bool:
    """Whether a cell's centre lies in [start, stop]."""
    first = -((CELL // 2 - start) // CELL) * CELL + CELL // 2  # the first centre at or behind start
    return first <= stop
