"""Coverage of the last minute: what is processed, what has holes, and what is due and not processed."""

from __future__ import annotations

import pytest

from streamer.runtime.recent_coverage import RecentCoverage


def test_it_is_of_the_last_minute() -> None:
    recent = RecentCoverage()
    assert recent.ratio(0.0) == 0.0
    recent.push(0.0, 10.0, 0.0)
    assert recent.ratio(0.0) == 0.0
    recent.push(30.0, 10.0, 10.0)
    assert recent.ratio(30.0) == 0.5
    recent.push(60.5, 20.0, 20.0)  # the first is more than a minute ago
    assert recent.ratio(60.5) == 1.0
    recent.push(85.0, 10.0, 0.0)
    assert recent.ratio(85.0) == pytest.approx(30 / 40)


def test_live_media_that_keeps_pace_is_covered_even_in_bursts() -> None:
    recent = RecentCoverage()
    for second in range(300):
        recent.push(float(second), 1.0, 1.0)
        assert recent.ratio(second, slack_s=2.5) == 1.0
    bursts = RecentCoverage()
    for second in range(300):
        if second % 10 == 0:
            bursts.push(float(second), 10.0, 10.0)
        assert bursts.ratio(second, slack_s=12.5) == 1.0


def test_live_media_that_is_due_and_not_processed_is_not_covered() -> None:
    recent = RecentCoverage()
    for second in range(100):
        recent.push(float(second), 1.0, 1.0)
    assert recent.ratio(101.0, slack_s=2.5) == 1.0
    assert recent.ratio(132.0, slack_s=2.5) == pytest.approx(28 / 57.5)
    assert recent.ratio(500.0, slack_s=2.5) == 0.0


def test_a_slow_worker_is_not_covered_although_what_it_did_has_no_holes() -> None:
    recent = RecentCoverage()
    for second in range(120):
        recent.push(float(second), 0.5, 0.5)
    assert recent.ratio(120.0, slack_s=2.5) == pytest.approx(0.52, abs=0.02)


def test_a_recording_takes_as_long_as_it_takes() -> None:
    recent = RecentCoverage()
    recent.push(0.0, 5.0, 5.0)
    recent.push(50.0, 5.0, 4.0)
    assert recent.ratio(55.0) == pytest.approx(0.9)
