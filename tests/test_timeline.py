"""The clock of an epoch: which anchor is believed."""

from __future__ import annotations

import pytest

from streamer.timeline import Timeline, samples, seconds
from streamer.types import SAMPLE_RATE_HZ, Anchor


def test_seconds_and_samples() -> None:
    assert seconds(221_000) == 10.0
    assert samples(10.0) == 221_000


def test_nothing_is_known_before_the_first_anchor() -> None:
    timeline = Timeline()
    assert (timeline.source, timeline.utc_s(0), timeline.arrival_utc_s(0)) == (None, None, None)


def test_the_better_clock_is_believed_and_the_arrival_clock_is_kept() -> None:
    timeline = Timeline()
    timeline.push(Anchor(0, 1000.0, "arrival"))
    assert (timeline.source, timeline.utc_s(SAMPLE_RATE_HZ)) == ("arrival", 1001.0)
    timeline.push(Anchor(0, 990.0, "rtcp"))
    timeline.push(Anchor(0, 1000.0, "arrival"))
    timeline.push(Anchor(0, 5.0, "file"))
    assert (timeline.source, timeline.utc_s(0), timeline.arrival_utc_s(0)) == ("rtcp", 990.0, 1000.0)


def test_a_late_arrival_does_not_move_the_clock() -> None:
    timeline = Timeline()
    timeline.push(Anchor(0, 1000.0, "arrival"))
    timeline.push(Anchor(SAMPLE_RATE_HZ, 1003.0, "arrival"))  # two seconds late
    assert timeline.utc_s(0) == 1000.0
    timeline.push(Anchor(2 * SAMPLE_RATE_HZ, 1001.5, "arrival"))  # the first ones were half a second late
    assert timeline.utc_s(0) == pytest.approx(999.5)


def test_a_camera_whose_clock_runs_slow_is_followed() -> None:
    timeline = Timeline()
    slow = 1.001  # seconds of ours in one of its seconds: 86 s a day
    for second in range(3600):
        timeline.push(Anchor(second * SAMPLE_RATE_HZ, 1000.0 + slow * second, "arrival"))
    utc_s = timeline.arrival_utc_s(3599 * SAMPLE_RATE_HZ)
    assert utc_s == pytest.approx(1000.0 + slow * 3599, abs=0.1)
