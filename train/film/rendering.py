"""Draws a film picture by picture. A view in which nothing moves is drawn once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.film.actor import Actor, Pose
from train.film.camera import MARGIN_PX, Sensor
from train.film.plan import Film


def render(film: Film, clip_s: float) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a clip, (height, width, 3) RGB, at the camera's rate.

    Raises:
        EarwitnessError: a picture can't be decoded.

    """
    form = film.camera.format
    sensor, view = Sensor(film.camera), _View(film, clip_s)
    frozen: NDArray[np.uint8] | None = None
    for index in range(round(clip_s * form.fps)):
        at_s = index / form.fps
        late = at_s >= film.condition_s
        if frozen is None:
            picture = sensor.take(view.at(at_s), at_s, dark=film.condition == "dark" and late)
            frozen = picture if film.condition == "frozen" and late else None
            yield picture
        else:
            yield frozen


class _View:
    """What is in front of the camera."""

    def __init__(self, film: Film, clip_s: float) -> None:
        form = film.camera.format
        self._size = (form.width + 2 * MARGIN_PX, form.height + 2 * MARGIN_PX)
        self._actors = [Actor(shot, self._size, form.height, clip_s) for shot in film.shots()]
        self._seen: list[tuple[Actor, Pose]] = []
        self._picture = Image.new("RGB", self._size)

    def at(self, at_s: float) -> Image.Image:
        """The view; the same object as before if nothing moved."""
        seen: list[tuple[Actor, Pose]] = []
        for actor in self._actors:
            if actor.shot.onset_s <= at_s < actor.shot.offset_s:
                pose = actor.pose(at_s)
                seen = [(actor, pose)] if actor.hides_all(pose) else [*seen, (actor, pose)]
        if seen != self._seen:
            self._seen, self._picture = seen, Image.new("RGB", self._size)
            for actor, pose in seen:
                actor.draw(self._picture, pose)
        return self._picture
