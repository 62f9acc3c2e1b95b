"""The pictures of a film: as many as the camera takes, the same for the same film, and each change at its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from streamer.media.writing import VideoFormat
from tests.train.photos import COLOURS, make_photo
from train.data.recordings import Recording
from train.film.camera import Camera
from train.film.plan import Film, Sight
from train.film.rendering import render
from train.film.rooms import room
from train.film.stage import Enters, Shot

CAMERA = Camera(
    format=VideoFormat(128, 96, 10, 20, 23, "ultrafast"),
    gain=1.0,
    drift=0.0,
    drift_s=10.0,
    white=(1.0, 1.0, 1.0),
    infrared=False,
    noise=0.0,
    blur_px=0.0,
    shake_px=0.0,
    dark_gain=0.0,
    seed=0,
)
CENTRE = (slice(40, 56), slice(56, 72))


def shot(path: Path, onset_s: float, offset_s: float, *, enters: Enters = "cut", full: bool = True) -> Shot:
    picture = Recording(path, path.stem, path.stem, "ship", "CC0", "here", "", "image")
    middle = ((0.5, 0.5), (0.5, 0.5))
    return Shot(
        onset_s, offset_s, picture, 0, enters, full, 0.6, 1.0, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0), middle, False, 0.0
    )


def film(tmp_path: Path, *shots: Shot, camera: Camera = CAMERA) -> Film:
    background = shot(make_photo(tmp_path / "other.png", COLOURS["other"], 0), 0.0, 4.0)
    sights = [Sight("background", None, background), *(Sight("unrelated", None, one) for one in shots)]
    return Film(camera, "ok", 0.0, tuple(sights))


def cat(tmp_path: Path) -> Path:
    return make_photo(tmp_path / "Cat.png", COLOURS["Cat"], 1)


def reds(pictures: Sequence[np.ndarray]) -> list[bool]:
    """Whether the middle of each picture shows the cat."""
    return [bool(one[CENTRE][..., 0].mean() > 120) for one in pictures]


def test_a_picture_is_seen_from_its_onset_to_its_offset(tmp_path: Path) -> None:
    for full in (True, False):
        pictures = list(render(film(tmp_path, shot(cat(tmp_path), 1.0, 2.5, full=full)), 4.0))
        assert len(pictures) == 40
        assert {(one.shape, one.dtype) for one in pictures} == {((96, 128, 3), np.dtype(np.uint8))}
        assert reds(pictures) == [1.0 <= index / 10 < 2.5 for index in range(40)]
        assert (pictures[15][2, 2, 0] > 120) == full  # one that does not fill the view leaves its corners


@pytest.mark.parametrize("enters", ["fade", "slide"])
def test_a_picture_that_fades_or_slides_is_in_place_soon(tmp_path: Path, enters: Enters) -> None:
    pictures = list(render(film(tmp_path, shot(cat(tmp_path), 1.0, 3.0, enters=enters)), 4.0))
    red = reds(pictures)
    assert not any(red[:11])
    assert all(red[14:26])
    assert not any(red[30:])
    changed = [not np.array_equal(one, before) for before, one in pairwise(pictures[10:16])]
    assert changed == [True, True, True, True, False]


def test_a_quiet_camera_takes_equal_pictures_and_noise_makes_them_differ(tmp_path: Path) -> None:
    quiet = list(render(film(tmp_path), 4.0))
    assert all(np.array_equal(one, quiet[0]) for one in quiet)
    noisy = list(render(film(tmp_path, camera=replace(CAMERA, noise=2.0)), 4.0))
    again = list(render(film(tmp_path, camera=replace(CAMERA, noise=2.0)), 4.0))
    assert np.array_equal(noisy, again)
    assert (noisy[0].astype(int) - quiet[0]).std() == pytest.approx(2.0, abs=0.2)
    assert (noisy[1].astype(int) - noisy[0]).std() == pytest.approx(2.0 * 2**0.5, abs=0.3)


def test_exposure_drifts_slowly(tmp_path: Path) -> None:
    pictures = list(render(film(tmp_path, camera=replace(CAMERA, drift=0.1, drift_s=4.0)), 4.0))
    levels = np.array([one.mean() for one in pictures])
    assert levels.max() / levels.min() == pytest.approx(1.1 / 0.9, abs=0.04)
    assert np.abs(np.diff(levels)).max() < 0.02 * levels.mean()


def test_a_shaky_camera_moves_by_its_amplitude(tmp_path: Path) -> None:
    pictures = list(render(film(tmp_path, camera=replace(CAMERA, shake_px=2.0)), 4.0))
    assert len({one.tobytes() for one in pictures}) > 20
    assert np.abs(pictures[0].astype(int) - pictures[5]).mean() < 12  # by pixels, not by a part of the view


def test_infrared_is_grey(tmp_path: Path) -> None:
    (picture, *_) = render(film(tmp_path, camera=replace(CAMERA, infrared=True)), 4.0)
    assert np.ptp(picture, axis=2).max() == 0


def test_frozen_and_dark_from_their_moment_on(tmp_path: Path) -> None:
    moving = film(tmp_path, shot(cat(tmp_path), 1.0, 2.5), camera=replace(CAMERA, noise=2.0))
    frozen = list(render(replace(moving, condition="frozen", condition_s=1.2), 4.0))
    assert reds(frozen) == [index >= 10 for index in range(40)]
    assert all(np.array_equal(one, frozen[12]) for one in frozen[12:])
    assert not np.array_equal(frozen[11], frozen[12])
    dark = list(render(replace(moving, condition="dark", condition_s=1.2), 4.0))
    assert dark[11].mean() > 50
    assert max(one.mean() for one in dark[12:]) < 5


def test_rooms_are_drawn_from_their_seed() -> None:
    rooms = [np.asarray(room(seed), np.int16) for seed in range(8)]
    assert np.array_equal(rooms[3], np.asarray(room(3)))
    assert {one.shape for one in rooms} == {(360, 480, 3)}
    assert min(one.std() for one in rooms) > 8  # something to see
    assert min(np.abs(one - other).mean() for one, other in combinations(rooms, 2)) > 10
