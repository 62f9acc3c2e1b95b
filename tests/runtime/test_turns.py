"""When recordings get turns."""

from __future__ import annotations

import pytest

from streamer.runtime.turns import RecordingTurns


def test_recordings_wait_while_live_media_is_late() -> None:
    turns = RecordingTurns()
    assert turns.may_begin(0.0, late_s=0.0)
    turns.ended(0.0, 3.0)
    assert not turns.may_begin(3.0, late_s=3.0)
    assert not turns.may_begin(5.0, late_s=0.3)
    assert turns.may_begin(5.0, late_s=0.2)


def test_if_live_streams_are_always_late_recordings_get_a_tenth_of_the_time() -> None:
    turns = RecordingTurns()
    now_s, worked_s = 0.0, 0.0
    while now_s < 1000.0:
        if turns.may_begin(now_s, late_s=4.0):
            turns.ended(now_s, now_s + 3.0)
            now_s, worked_s = now_s + 3.0, worked_s + 3.0
        else:
            now_s += 0.1
    assert worked_s == pytest.approx(100.0, rel=0.05)


def test_delay_caused_by_recordings_does_not_count_as_live_lag() -> None:
    turns = RecordingTurns()
    assert turns.own_late_s(1.5) == 1.5
    turns.ended(0.0, 3.0)
    assert turns.own_late_s(3.1) == pytest.approx(0.1)
    assert turns.own_late_s(1.0) == 0.0  # it catches up
    assert turns.own_late_s(4.0) == pytest.approx(3.0)  # late for its own reasons
    assert turns.own_late_s(0.0) == 0.0
    assert turns.own_late_s(2.0) == 2.0
