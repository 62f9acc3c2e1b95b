"""One shot's picture: where it is in the view at any moment, and drawing it there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from streamer.types import CELL, SAMPLE_RATE_HZ
from train.film.gallery import Clip, open_clip, open_photo
from train.film.rooms import room
from train.film.stage import Shot

_ENTER_S = 0.4
"""Duration of a fade or a slide."""
_OPAQUE = 16
"""Steps of a fade."""
_SOFT = 0.04
"""Width of a picture's soft edge, a share of its height: its border must not be what is learned."""
_Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pose:
    """How the picture is seen at some moment. Equal poses look the same."""

    left: int  # of its box in the view
    top: int
    zoom: float
    window: tuple[float, float]
    opacity: int  # of `_OPAQUE`
    moment: int  # number of the picture in a real clip


class Actor:
    """Draws one shot into views of one size."""

    def __init__(self, shot: Shot, view: _Size, height: int, clip_s: float) -> None:
        """A shot in a view of `view` pixels, of which the middle `height` rows are not the camera's margin."""
        self.shot = shot
        self._view, self._height, self._clip_s = view, height, clip_s
        inset = round(shot.height * shot.aspect * height), round(shot.height * height)
        self._box = view if shot.full else inset
        self._still: Image.Image | None = None
        self._clip: Clip | None = None
        self._patch: tuple[tuple[object, ...], Image.Image] | None = None

    def pose(self, at_s: float) -> Pose:
        """The pose at `at_s`, which is within the shot."""
        shot, (width, height) = self.shot, self._view
        length_s = shot.offset_s - shot.onset_s
        share = (at_s - shot.onset_s) / length_s
        there = self._there(at_s, min(_ENTER_S, length_s / 4))
        x, y = _between(shot.begin, shot.end, share)
        left = (width - self._box[0]) / 2 + x * self._height
        top = (height - self._box[1]) / 2 + y * self._height
        if shot.enters == "slide":
            outside = -self._box[0] if shot.mirrored else width
            left += (1 - there) * (outside - left)
        return Pose(
            left=round(left),
            top=round(top),
            zoom=shot.zoom[0] + share * (shot.zoom[1] - shot.zoom[0]),
            window=_between(*shot.window, share),
            opacity=round(_OPAQUE * there) if shot.enters == "fade" else _OPAQUE,
            moment=self._moment(at_s),
        )

    def hides_all(self, pose: Pose) -> bool:
        """Whether nothing behind it is seen."""
        return self.shot.full and pose.opacity == _OPAQUE and pose.left == 0

    def draw(self, view: Image.Image, pose: Pose) -> None:
        """Draw the picture over `view`. Raises `EarwitnessError` if it can't be decoded."""
        patch = self._patch_of(pose)
        if self.shot.full and pose.opacity == _OPAQUE:
            view.paste(patch, (pose.left, pose.top))
        else:
            view.paste(patch, (pose.left, pose.top), _mask(self._box, pose.opacity, soft=not self.shot.full))

    def _patch_of(self, pose: Pose) -> Image.Image:
        """The picture as large as its box. Scaling takes the most time, so the last one is kept."""
        key = (pose.zoom, pose.window, pose.moment)
        if self._patch is not None and self._patch[0] == key:
            return self._patch[1]
        source = self._source(pose.moment)
        width, height = self._box
        across = min(source.width, source.height * width / height) / pose.zoom
        down = across * height / width
        left, top = (source.width - across) * pose.window[0], (source.height - down) * pose.window[1]
        crop = (left, top, left + across, top + down)
        patch = source.resize(self._box, Image.Resampling.BILINEAR, crop)
        self._patch = (key, patch)
        return patch

    def _there(self, at_s: float, enter_s: float) -> float:
        """How far it has come in, and is not yet gone: 0 to 1."""
        shot = self.shot
        come = (at_s - shot.onset_s) / enter_s if shot.onset_s > 0 else 1.0
        stays = (shot.offset_s - at_s) / enter_s if shot.offset_s < self._clip_s else 1.0
        return min(1.0, come, stays)

    def _moment(self, at_s: float) -> int:
        clip = self._moving()
        if clip is None:
            return 0
        length_s = float(clip.at_s[-1]) + CELL / SAMPLE_RATE_HZ
        within_s = (self.shot.from_s + at_s - self.shot.onset_s) % length_s  # a short clip begins again
        return int(np.searchsorted(clip.at_s, within_s, side="right")) - 1

    def _moving(self) -> Clip | None:
        picture = self.shot.picture
        if self._clip is None and picture is not None and picture.kind == "video":
            self._clip = open_clip(picture.path)
        return self._clip

    def _source(self, moment: int) -> Image.Image:
        """The whole picture, no larger than the box needs, because it is scaled for each pose."""
        clip = self._moving()
        if clip is not None:
            picture = Image.fromarray(clip.pixels[moment])
            return ImageOps.mirror(picture) if self.shot.mirrored else picture
        if self._still is None:
            photo = room(self.shot.seed) if self.shot.picture is None else open_photo(self.shot.picture.path)
            width, height = self._box
            fits = min(photo.width, photo.height * width / height) / max(self.shot.zoom)
            if width < fits:
                smaller = tuple(max(2, round(side * width / fits)) for side in photo.size)
                photo = photo.resize((smaller[0], smaller[1]), Image.Resampling.LANCZOS)
            self._still = ImageOps.mirror(photo) if self.shot.mirrored else photo
        return self._still


def _between(begin: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return begin[0] + share * (end[0] - begin[0]), begin[1] + share * (end[1] - begin[1])


@lru_cache(64)
def _mask(box: _Size, opacity: int, *, soft: bool) -> Image.Image:
    if not soft:
        return Image.new("L", box, round(255 * opacity / _OPAQUE))
    edge = max(1, round(_SOFT * box[1]))
    mask = Image.new("L", box)
    inner = (edge, edge, box[0] - edge - 1, box[1] - edge - 1)
    ImageDraw.Draw(mask).rounded_rectangle(inner, 2 * edge, round(255 * opacity / _OPAQUE))
    return mask.filter(ImageFilter.GaussianBlur(edge / 2))
