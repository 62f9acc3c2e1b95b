"""Finds times and places for the pictures of a clip, so that those that are seen together hide each other little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from train.data.mixing import Label
from train.data.recordings import Recording
from train.film.config import VideoConfig

Enters: TypeAlias = Literal["cut", "fade", "slide"]
_ENTERS: tuple[Enters, ...] = ("cut", "fade", "slide")
_SHORTEST_S = 0.4
"""Of a shot, so that slow cameras catch it."""
_FIXED = 0.8
"""Share of cameras that do not turn or zoom."""
_TRIES = 12
_Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture that is seen for some time. Lengths are shares of the view's height, places are from its middle."""

    onset_s: float
    offset_s: float
    picture: Recording | None  # None: a drawn room
    seed: int  # of the room
    enters: Enters
    full: bool  # it fills the view
    height: float
    aspect: float  # width / height
    begin: _Point  # centre, at the onset
    end: _Point  # at the offset
    zoom: _Point  # at the onset and at the offset; 1: as much of the picture as fits
    window: tuple[_Point, _Point]  # which part of the picture is seen, at both: 0 to 1 across and down
    mirrored: bool
    from_s: float  # where a real clip begins


class Stage:
    """The shots of one clip."""

    def __init__(self, clip_s: float, config: VideoConfig, rng: np.random.Generator) -> None:
        self._clip_s, self._config, self._rng = clip_s, config, rng
        self._shots: list[Shot] = []

    def times_of(self, label: Label) -> _Point:
        """When an event is seen: about while it is heard, and for two thirds of it at least."""
        rng, config = self._rng, self._config
        lead_s, linger_s = rng.uniform(*config.lead_s), rng.uniform(*config.linger_s)
        if rng.random() < config.always:
            return 0.0, self._clip_s
        most_s = (label.offset_s - label.onset_s) / 6
        return self._within(label.onset_s - max(lead_s, -most_s), label.offset_s + max(linger_s, -most_s))

    def any_times(self) -> _Point:
        """Times like an event's that have nothing to do with the sound."""
        rng, config = self._rng, self._config
        onset_s, length_s = rng.uniform(-1, self._clip_s - _SHORTEST_S), rng.uniform(1, 5)
        if rng.random() < config.always:
            return 0.0, self._clip_s
        return self._within(onset_s, onset_s + length_s)

    def background(self, picture: Recording | None, times: _Point) -> Shot:
        """A shot behind all others."""
        still = self._rng.random() < _FIXED
        return self._shot(picture, times, "cut", 1.0, ((0.0, 0.0), (0.0, 0.0)), full=True, still=still)

    def shot(self, picture: Recording | None, times: _Point) -> Shot:
        """A shot that fills the view, or covers a part of it where it hides others the least."""
        rng = self._rng
        beside = [one for one in self._shots if one.onset_s < times[1] and times[0] < one.offset_s]
        full = rng.random() < self._config.full and not any(one.full for one in beside)
        tallest = 0.55 if any(not one.full for one in beside) else 0.95
        still = rng.random() < self._config.still
        enters = _ENTERS[int(rng.integers(len(_ENTERS)))] if times[0] > 0 else "cut"
        tries = []
        for _ in range(_TRIES):
            height = rng.uniform(0.45, tallest)
            path = self._path(height, still=still)
            tries.append(self._shot(picture, times, enters, height, path, full=False, still=still))
        best = min(tries, key=lambda one: sum(_overlap(one, other) for other in beside if not other.full))
        if full:
            best = self._shot(picture, times, enters, 1.0, ((0.0, 0.0), (0.0, 0.0)), full=True, still=still)
        self._shots.append(best)
        return best

    def _path(self, height: float, *, still: bool) -> tuple[_Point, _Point]:
        """From where to where its centre moves: in the middle of the view, because networks crop its sides."""
        slack = (1.05 - height) / 2
        x, y = self._rng.uniform(-slack, slack, 2)
        dx, dy = (0.0, 0.0) if still else self._rng.uniform(-0.2, 0.2, 2)
        return (float(x - dx), float(y - dy)), (float(x + dx), float(y + dy))

    def _shot(
        self,
        picture: Recording | None,
        times: _Point,
        enters: Enters,
        height: float,
        path: tuple[_Point, _Point],
        *,
        full: bool,
        still: bool,
    ) -> Shot:
        rng = self._rng
        zoom = rng.uniform(1, 1.4, 2)
        window = rng.uniform(0.1, 0.9, (2, 2))
        if still:
            zoom[1], window[1] = zoom[0], window[0]
        return Shot(
            onset_s=float(times[0]),
            offset_s=float(times[1]),
            picture=picture,
            seed=int(rng.integers(2**31)),
            enters=enters,
            full=full,
            height=float(height),
            aspect=float(rng.uniform(0.75, 1.4)),
            begin=path[0],
            end=path[1],
            zoom=(float(zoom[0]), float(zoom[1])),
            window=((float(window[0, 0]), float(window[0, 1])), (float(window[1, 0]), float(window[1, 1]))),
            mirrored=bool(rng.random() < 0.5),
            from_s=float(rng.uniform(0, 5)),
        )

    def _within(self, onset_s: float, offset_s: float) -> _Point:
        onset_s = min(max(0.0, onset_s), self._clip_s - _SHORTEST_S)
        return onset_s, min(max(offset_s, onset_s + _SHORTEST_S), self._clip_s)


def _overlap(one: Shot, other: Shot) -> float:
    """The area that both cover at their onsets, in squares of the view's height."""
    sizes = ((one.height * one.aspect, other.height * other.aspect), (one.height, other.height))
    area = 1.0
    for axis, (mine, its) in enumerate(sizes):
        low = max(one.begin[axis] - mine / 2, other.begin[axis] - its / 2)
        high = min(one.begin[axis] + mine / 2, other.begin[axis] + its / 2)
        area *= max(0.0, high - low)
    return area
