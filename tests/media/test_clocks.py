"""Clocks of sources: implausible ones are ignored and reported."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from streamer.media.clocks import clock_fault
from streamer.media.source import open_media
from streamer.timeline import PLAUSIBLE_S, recorded_plausibly
from streamer.types import Anchor, Want
from tests.make_media import make_clip
from tests.rtsp import RtspServer, needs_rtsp

SOUND = Want(frozenset({22_100}))
NOW_S = 1_790_000_000.0
DAY_S = 86_400.0


@pytest.mark.parametrize("off_s", [0.0, 1.0, -30.0, 59.0])
def test_a_plausible_clock_is_accepted(off_s: float) -> None:
    assert clock_fault(NOW_S + off_s, NOW_S) == ""


@pytest.mark.parametrize(
    ("utc_s", "words"),
    [
        (-2_208_988_784.0, "says 1900-01-01 00:00:16 UTC, 127 years behind"),
        (100.0, "says 1970-01-01 00:01:40 UTC, 57 years behind"),
        (NOW_S + 7_200.0, "says 2026-09-21 16:13:20 UTC, 2 hours ahead"),
        (NOW_S - 3 * DAY_S, "3 days behind"),
        (NOW_S + PLAUSIBLE_S + 1, "1 minutes ahead"),
        (9e12, "years ahead"),
        (-9e12, "years behind"),
    ],
)
def test_a_clock_that_is_off_gets_one_line(utc_s: float, words: str) -> None:
    fault = clock_fault(utc_s, NOW_S)
    assert words in fault
    assert "\n" not in fault


def test_which_recording_dates_are_plausible() -> None:
    for utc_s in (NOW_S, NOW_S - 1, NOW_S + DAY_S / 2, 1_000_000_000.0):
        assert recorded_plausibly(utc_s, NOW_S)
    for utc_s in (-2_082_844_800.0, 0.0, 1.0, 315_532_800.0, NOW_S + 2 * DAY_S, 9e12):
        assert not recorded_plausibly(utc_s, NOW_S)


def anchors(path: Path) -> tuple[list[Anchor], str]:
    with open_media(str(path), SOUND) as media:
        return [item for item in media if isinstance(item, Anchor)], media.clock_fault


@pytest.mark.parametrize(
    ("made", "said"), [("1904-01-01T00:00:00Z", False), ("1970-01-01T00:00:00Z", False), ("2098-05-01T12:00:00Z", True)]
)
def test_an_implausible_recording_date_is_ignored(tmp_path: Path, made: str, said: bool) -> None:
    path = make_clip(tmp_path / "a.mp4", seconds=1, metadata={"creation_time": made})
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert anchors(path)[0] == [Anchor(0, 1_600_000_000.0, "file")]
    assert (anchors(path)[1] != "") == said
    os.utime(path, (1, 1))  # as in images and archives that are built the same each time
    assert anchors(path)[0] == []


@needs_rtsp
@pytest.mark.parametrize("clock", ["clock-time", "ntp"])
def test_a_camera_whose_clock_was_never_set(tmp_path: Path, clock: str) -> None:
    """GStreamer's `clock-time` sends the uptime, like a camera without a battery: the year 1900."""
    clip = make_clip(tmp_path / "a.mp4", seconds=9)
    found: list[Anchor] = []
    with RtspServer(clip, clock=clock) as server, open_media(server.url(), SOUND) as media:
        began_s = time.time()
        for item in media:
            if isinstance(item, Anchor):
                found.append(item)
            if media.clock_fault or (found and found[-1].source == "rtcp") or time.time() > began_s + 8:
                break
        fault = media.clock_fault
    assert all(abs(anchor.utc_s - anchor.at / 22_100 - began_s) < 10 for anchor in found)
    sources = {anchor.source for anchor in found}
    if clock == "ntp":
        assert (sources, fault) == ({"arrival", "rtcp"}, "")
    else:
        assert sources == {"arrival"}
        assert "its clock says 1900-01-0" in fault
