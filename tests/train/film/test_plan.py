"""What is seen in a clip: as often right, wrong and out of view as configured, and true to its own record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from train.data.mixing import Label
from train.data.recordings import Recording
from train.film.config import VideoConfig
from train.film.pictures import PicturePool, pool_of
from train.film.plan import Film, draw_film

CLASSES = ("Blender", "Cat", "Dog", "Speech", "Frying")
CLIP_S = 10.0


def recording(label: str, number: int = 0) -> Recording:
    name = f"{label}:{number}"
    return Recording(Path(name), label, name, "ship", "CC0", "here", "", "image")


POOL: PicturePool = pool_of(
    [recording(label, number) for label in (*CLASSES[1:], "other") for number in range(4)], CLASSES
)
"""Pictures of all classes but Blender."""
QUIET = {"wrong": 0, "unseen": 0, "silent": 0, "unrelated": {0: 1}, "dark": 0, "frozen": 0, "missing": 0}
"""Nothing is wrong, and nothing is seen without a reason."""


def label(name: str, onset_s: float, offset_s: float) -> Label:
    return Label(onset_s, offset_s, name, recording(name))


def labels(rng: np.random.Generator) -> list[Label]:
    """Some events, in order of onset."""
    made = []
    for name in rng.choice(CLASSES, int(rng.integers(0, 4)), replace=False):
        onset_s = rng.uniform(0, 4)
        made.append(label(str(name), onset_s, onset_s + rng.uniform(0.3, 2)))
        if rng.random() < 0.5:
            made.append(label(str(name), onset_s + 4, onset_s + rng.uniform(4.3, 6)))
    return sorted(made, key=lambda one: one.onset_s)


def films(count: int, **fields: object) -> Iterator[tuple[list[Label], Film]]:
    config = VideoConfig.model_validate(fields)
    for seed in range(count):
        heard = labels(np.random.default_rng(seed))
        yield heard, draw_film(heard, POOL, CLASSES, CLIP_S, config, np.random.default_rng([seed, 1]))


def seen_at(film: Film, at_s: float) -> set[str]:
    shots = [one for one in film.shots() if one.onset_s <= at_s < one.offset_s]
    return {one.picture.label for one in shots if one.picture is not None}


def test_shares_are_those_of_the_configuration() -> None:
    roles: Counter[str] = Counter()
    conditions: Counter[str] = Counter()
    silent = 0
    for heard, film in films(1000, wrong=0.1, unseen=0.3, silent=0.2, dark=0.1, frozen=0.05, missing=0.15):
        conditions[film.condition] += 1
        silent += any(one.role == "silent" for one in film.sights)
        if film.condition == "ok":
            views = {(one.heard.label, one.role) for one in film.sights if one.heard is not None}
            assert len(views) == len({one.label for one in heard})  # all events of a class are seen alike
            roles.update(role for name, role in views if name != "Blender")
            assert all(role in ("wrong", "no_picture") for name, role in views if name == "Blender")
    assert {name: count / 1000 for name, count in conditions.items()} == pytest.approx(
        {"ok": 0.7, "dark": 0.1, "frozen": 0.05, "missing": 0.15}, abs=0.035
    )
    drawn = sum(roles.values())
    assert {name: count / drawn for name, count in roles.items()} == pytest.approx(
        {"agrees": 0.6, "wrong": 0.1, "unseen": 0.3}, abs=0.04
    )
    assert silent / (1000 - conditions["missing"]) == pytest.approx(0.2, abs=0.04)


def test_what_is_recorded_is_what_is_seen() -> None:
    for heard, film in films(500, wrong=0.2, unseen=0.3, silent=0.3, dark=0, frozen=0.2, missing=0.1):
        assert [one.heard for one in film.sights if one.heard is not None] == heard
        names = {one.label for one in heard}
        for one in film.sights:
            if one.heard is not None and one.role in ("unseen", "no_picture") and film.condition == "ok":
                times = np.linspace(one.heard.onset_s, min(one.heard.offset_s, CLIP_S), 20)
                assert not any(one.heard.label in seen_at(film, at_s) for at_s in times)
            if one.shot is None or one.shot.picture is None:
                continue
            shown = one.shot.picture.label
            if one.role == "agrees":
                assert one.heard is not None
                assert shown == one.heard.label
            elif one.role in ("wrong", "silent"):
                assert shown in CLASSES
                assert shown not in names
            else:
                assert shown == "other"


def test_an_event_is_seen_for_most_of_the_time_in_which_it_is_heard() -> None:
    for _, film in films(500, **QUIET, lead_s=(-9, 1), linger_s=(-9, 1)):
        for one in film.sights:
            if one.role == "agrees":
                assert one.heard is not None
                assert one.shot is not None
                onset_s, offset_s = max(one.heard.onset_s, one.shot.onset_s), min(one.heard.offset_s, one.shot.offset_s)
                assert offset_s - onset_s >= 0.66 * (min(one.heard.offset_s, CLIP_S) - one.heard.onset_s) - 1e-9
                assert 0 <= one.shot.onset_s < one.shot.offset_s <= CLIP_S


def test_events_that_follow_closely_have_one_picture() -> None:
    config = VideoConfig.model_validate({**QUIET, "lead_s": (0.5, 0.5), "linger_s": (0.5, 0.5), "always": 0})
    heard = [label("Dog", 1, 1.5), label("Dog", 2, 2.5), label("Dog", 7, 8)]
    film = draw_film(heard, POOL, CLASSES, CLIP_S, config, np.random.default_rng(0))
    first, second, third = (one.shot for one in film.sights if one.heard is not None)
    assert first is not None
    assert third is not None
    assert first == second
    assert (first.onset_s, first.offset_s) == (0.5, 3.0)
    assert (third.onset_s, third.offset_s) == (6.5, 8.5)
    assert first.picture == third.picture
    assert len(film.shots()) == 2 + sum(one.role == "background" for one in film.sights)


def test_nothing_new_is_seen_once_the_picture_is_frozen() -> None:
    late = 0
    for _, film in films(300, wrong=0, unseen=0, frozen=1, dark=0, missing=0):
        assert film.condition == "frozen"
        pictures = film.condition_s * film.camera.format.fps
        assert pictures == pytest.approx(round(pictures))
        for one in film.sights:
            assert one.shot is None or one.shot.onset_s <= film.condition_s
            assert one.shot is None or one.shot.offset_s == CLIP_S or one.shot.offset_s <= film.condition_s
            late += one.role == "unseen"
    assert late > 50


def test_without_video_nothing_is_seen() -> None:
    for heard, film in films(50, missing=1, dark=0, frozen=0):
        assert [(one.role, one.heard, one.shot) for one in film.sights] == [("unseen", one, None) for one in heard]


def test_new_pictures_do_not_give_events_away() -> None:
    """Pictures that come and go without an event are as common as configured."""
    counts = Counter(
        sum(one.role == "unrelated" for one in film.sights)
        for _, film in films(1000, unrelated={0: 1, 2: 3}, missing=0)
    )
    assert counts[2] / 1000 == pytest.approx(0.75, abs=0.08)  # those after a freeze are not seen
    assert set(counts) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dark": 0.5, "frozen": 0.4, "missing": 0.2}, "together they can't exceed 1"),
        ({"wrong": 0.6, "unseen": 0.5}, "together they can't exceed 1"),
        ({"lead_s": (2, 1)}, "lead_s: the first value is above the second"),
        ({"noise": (-1, 1)}, "noise: must not be negative"),
        ({"crf": (20, 60)}, "crf: x264 knows 0 to 51"),
        ({"fps": (0,)}, "fps: each must be from 1 to 60"),
        ({"sizes": ((321, 240),)}, "sizes: each side must be even"),
        ({"unrelated": {}}, "unrelated:"),
        ({"unrelated": {1: 0}}, "unrelated:"),
        ({"shake_px": (0, 99)}, "shake_px: at most 16"),
        ({"picture": 1}, "Extra inputs"),
    ],
)
def test_a_configuration_that_is_wrong_says_what(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VideoConfig.model_validate(fields)
