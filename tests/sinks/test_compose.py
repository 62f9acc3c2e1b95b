"""Samples become seconds and UTC."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.event_level import EventLevel
from streamer.sinks.compose import offset_message, onset_message, scores_message, tags_message
from streamer.timeline import Timeline
from streamer.types import CELL, SAMPLE_RATE_HZ, Anchor, CellScores, Offset, Onset
from tests import messages as make

ONSET = Onset("e1", "cam", 3, "Dog", 10 * CELL, 13 * CELL, 0.123456)
OFFSET = Offset("e1", "cam", 3, "Dog", 10 * CELL, 40 * CELL, 0.6, 0.99999, "max_duration")
LEVEL = EventLevel(-23.456, 31.25)


def _timeline() -> Timeline:
    timeline = Timeline()
    timeline.push(Anchor(SAMPLE_RATE_HZ, 1_790_000_000.25, "rtcp"))
    return timeline


def test_an_event() -> None:
    onset, offset = onset_message(ONSET, _timeline(), LEVEL), offset_message(OFFSET, _timeline(), LEVEL)
    assert onset.onset_s == offset.onset_s == pytest.approx(10 * CELL / SAMPLE_RATE_HZ, abs=1e-6)
    assert onset.onset_utc_s == pytest.approx(1_790_000_000.25 - 1 + onset.onset_s, abs=2e-6)
    assert onset.onset_utc == "2026-09-21T14:13:19.912443Z"
    assert onset.trigger_s == pytest.approx(13 * CELL / SAMPLE_RATE_HZ, abs=1e-6)
    assert offset.offset_utc == "2026-09-21T14:13:21.899774Z"
    assert offset.duration_s == pytest.approx(30 * CELL / SAMPLE_RATE_HZ, abs=1e-6)
    assert (onset.clock, onset.score, offset.peak, offset.end_reason) == ("rtcp", 0.1235, 1.0, "max_duration")
    assert (onset.level_dbfs, onset.over_background_db) == (offset.level_dbfs, offset.over_background_db)
    assert (onset.level_dbfs, onset.over_background_db) == (-23.5, 31.2)
    make.numberer().number(onset)
    make.numberer().number(offset)


def test_a_model_that_hears_nothing_has_no_levels() -> None:
    onset = onset_message(ONSET, _timeline(), None)
    assert (onset.level_dbfs, onset.over_background_db) == (None, None)


def test_a_background_that_is_not_known() -> None:
    onset = onset_message(ONSET, _timeline(), EventLevel(-23.456, None))
    assert (onset.level_dbfs, onset.over_background_db) == (-23.5, None)


def test_without_a_clock_utc_is_null() -> None:
    onset = onset_message(ONSET, Timeline(), None)
    assert (onset.clock, onset.onset_utc_s, onset.onset_utc) == (None, None, None)
    assert onset.onset_s > 0


def test_scores_and_tags() -> None:
    scores = CellScores(
        "cam",
        3,
        20,
        np.array([[0.1, 0.2, 0.3], [0, 0, 0]], np.float32),
        np.array([True, False]),
        np.array([0.5, 0.25, 0.00004], np.float32),
        5,
        36,
    )
    message = scores_message(scores, make.CLASSES, _timeline())
    assert message.scores == [[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]]
    assert message.covered == [True, False]
    assert [message.start_s, message.step_s] == pytest.approx([20 * 0.066244344, 0.066244], abs=1e-6)
    tags = tags_message(scores, make.CLASSES, _timeline())
    assert tags.tags == {"Dog": 0.5, "Speech": 0.25, "Alarm_bell_ringing": 0.0}
    assert [tags.start_s, tags.end_s] == pytest.approx([0.331222, 2.384796], abs=1e-6)
    for one in (message, tags):
        make.numberer().number(one)
