"""Plans what is seen in a clip: which picture from when to when, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from train.data.mixing import Label
from train.data.recordings import Recording
from train.film.camera import Camera, draw_camera
from train.film.config import VideoConfig
from train.film.pictures import PicturePool
from train.film.stage import Shot, Stage

Role: TypeAlias = Literal["agrees", "wrong", "unseen", "no_picture", "silent", "unrelated", "background"]
"""agrees: the sounding class is seen. wrong: another class is seen instead. unseen: it is out of view. no_picture:
there is no picture of it. silent: a class is seen that is not heard in the clip. unrelated: something comes and goes
that is none of the classes. background: what is seen behind all that."""
Condition: TypeAlias = Literal["ok", "dark", "frozen", "missing"]
_APART_S = 0.5
"""A picture that would come back sooner stays."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that is seen, or an event that is not."""

    role: Role
    heard: Label | None  # the event that it belongs to
    shot: Shot | None  # None: not seen


@dataclass(frozen=True, slots=True)
class Film:
    """All that is seen in a clip."""

    camera: Camera
    condition: Condition
    condition_s: float  # from when, to the end of the clip
    sights: tuple[Sight, ...]

    def shots(self) -> list[Shot]:
        """From the farthest to the nearest: backgrounds, pictures that fill the view, others."""
        depths = {
            one.shot: (one.role != "background", not one.shot.full) for one in self.sights if one.shot is not None
        }
        return sorted(depths, key=lambda shot: depths[shot])


def draw_film(
    labels: Sequence[Label],
    pool: PicturePool,
    classes: Sequence[str],
    clip_s: float,
    config: VideoConfig,
    rng: np.random.Generator,
) -> Film:
    """A film for a clip in which `labels` are heard.

    Pictures appear and move alike, whatever they have to do with the sound: only what they show can tell.
    """
    camera = draw_camera(config, rng)
    condition = _condition(config, rng)
    late_s = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 0.8 * clip_s))
    since_s = int(late_s * camera.format.fps) / camera.format.fps  # at a picture
    if condition == "missing":
        return Film(camera, condition, 0.0, tuple(Sight("unseen", one, None) for one in labels))
    filming = _Filming(labels, pool, classes, clip_s, config, rng)
    sights = [*filming.backgrounds(), *filming.events(labels), *filming.silent(), *filming.unrelated()]
    if condition == "frozen":
        held = (_held(one, since_s, clip_s) for one in sights)
        sights = [one for one in held if one is not None]
    return Film(camera, condition, since_s if condition != "ok" else 0.0, tuple(sights))


def _condition(config: VideoConfig, rng: np.random.Generator) -> Condition:
    drawn = rng.random()
    if drawn < config.dark:
        return "dark"
    if drawn < config.dark + config.frozen:
        return "frozen"
    return "missing" if drawn < config.dark + config.frozen + config.missing else "ok"


class _Filming:
    """Draws what one clip shows."""

    def __init__(
        self,
        labels: Sequence[Label],
        pool: PicturePool,
        classes: Sequence[str],
        clip_s: float,
        config: VideoConfig,
        rng: np.random.Generator,
    ) -> None:
        self._heard = list(dict.fromkeys(one.label for one in labels))
        self._pool, self._clip_s, self._config, self._rng = pool, clip_s, config, rng
        self._unheard = [label for label in classes if label in pool.classes and label not in self._heard]
        self._stage = Stage(clip_s, config, rng)

    def backgrounds(self) -> list[Sight]:
        """One, or two with a cut in between."""
        clip_s, rng = self._clip_s, self._rng
        cut_s = float(rng.uniform(0.1, 0.9) * clip_s) if rng.random() < self._config.cut else clip_s
        times = [(0.0, cut_s), (cut_s, clip_s)] if cut_s < clip_s else [(0.0, clip_s)]
        return [Sight("background", None, self._stage.background(self._no_class(), one)) for one in times]

    def events(self, labels: Sequence[Label]) -> list[Sight]:
        """What is seen of the events. All events of a class are seen alike: it is one cat, in view or not."""
        sights = {one: sight for label in self._heard for one, sight in self._class(label, labels)}
        return [sights[one] for one in labels]

    def _class(self, name: str, labels: Sequence[Label]) -> list[tuple[Label, Sight]]:
        events = [one for one in labels if one.label == name]
        role, shown = self._view_of(name)
        if shown is None:
            return [(one, Sight(role, one, None)) for one in events]
        sights = []
        for onset_s, offset_s, together in self._times_of(events):
            shot = self._stage.shot(shown, (onset_s, offset_s))
            sights += [(one, Sight(role, one, shot)) for one in together]
        return sights

    def _view_of(self, name: str) -> tuple[Role, Recording | None]:
        """What is seen when this class is heard."""
        config, drawn = self._config, self._rng.random()
        if drawn < config.wrong and self._unheard:
            return "wrong", self._not_heard()
        if name not in self._pool.classes:
            return "no_picture", None
        if drawn < config.wrong + config.unseen:
            return "unseen", None
        return "agrees", self._drawn(self._pool.classes[name])

    def _times_of(self, events: Sequence[Label]) -> list[tuple[float, float, list[Label]]]:
        """From when to when a class is seen, and the events in that time. The events are in order of onset."""
        times: list[tuple[float, float, list[Label]]] = []
        for one in events:
            onset_s, offset_s = self._stage.times_of(one)
            together = [one]
            while times and onset_s < times[-1][1] + _APART_S:  # one that is always seen joins all before it
                since_s, until_s, earlier = times.pop()
                onset_s, offset_s, together = min(since_s, onset_s), max(until_s, offset_s), [*earlier, *together]
            times.append((onset_s, offset_s, together))
        return times

    def silent(self) -> list[Sight]:
        """Perhaps a class that is seen but not heard in the clip."""
        if self._rng.random() >= self._config.silent or not self._unheard:
            return []
        return [Sight("silent", None, self._stage.shot(self._not_heard(), self._stage.any_times()))]

    def unrelated(self) -> list[Sight]:
        """Pictures of none of the classes."""
        counts, odds = zip(*sorted(self._config.unrelated.items()), strict=True)
        count = int(self._rng.choice(counts, p=np.array(odds) / sum(odds)))
        return [
            Sight("unrelated", None, self._stage.shot(self._no_class(), self._stage.any_times())) for _ in range(count)
        ]

    def _not_heard(self) -> Recording:
        return self._drawn(self._pool.classes[self._unheard[int(self._rng.integers(len(self._unheard)))]])

    def _no_class(self) -> Recording | None:
        """None: a drawn room."""
        if not self._pool.unrelated or self._rng.random() < self._config.rooms:
            return None
        return self._drawn(self._pool.unrelated)

    def _drawn(self, groups: Sequence[Sequence[Recording]]) -> Recording:
        group = groups[int(self._rng.integers(len(groups)))]
        return group[int(self._rng.integers(len(group)))]


def _held(sight: Sight, frozen_s: float, clip_s: float) -> Sight | None:
    """What a picture that is frozen since `frozen_s` shows of a sight; None: nothing, and it is not an event."""
    if sight.shot is None or sight.shot.offset_s <= frozen_s:
        return sight
    if sight.shot.onset_s > frozen_s:
        return None if sight.heard is None else Sight("unseen", sight.heard, None)
    return replace(sight, shot=replace(sight.shot, offset_s=clip_s))
