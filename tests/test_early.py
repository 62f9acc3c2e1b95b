"""An event is raised early by undecided cells that are sure, and what was told then stands."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.decoding import ClassDecoding, Decoding
from streamer.events import EventTracker
from streamer.onsets import EARLY_CELLS, NOT_EARLY
from streamer.types import CELL, CellScores, Floats, NewestScores, Offset, Onset
from tests.test_backdating import column, smooth

PLAIN = Decoding(("Dog",), (ClassDecoding(0.5, 0.3, 5),))
TWO = Decoding(("Dog", "Cat"), (ClassDecoding(0.6, 0.4, 5), ClassDecoding(0.5, 0.5, 1)))
HOP, LOOKAHEAD = 4, 12


def tracker_of(decoding: Decoding, early_threshold: float = 0.7, max_event_cells: int = 10_000) -> EventTracker:
    ids = count()
    return EventTracker(
        "door", 0, decoding,
        max_event_cells=max_event_cells, new_id=lambda: f"event{next(ids)}", early_threshold=early_threshold,
    )  # fmt: skip


def pieces_of(final: Floats, before: Floats, hop: int = HOP, lookahead: int = LOOKAHEAD) -> list[CellScores]:
    """A stream's runs: each decides cells by `final`, (n, classes), and has those of `before` for undecided ones."""
    there = np.ones(len(final), np.bool_)
    found, decided = [], 0
    for stop in [*range(hop, len(final), hop), len(final)]:
        decide = len(final) if stop == len(final) else stop - lookahead
        if decide > decided:
            newest = NewestScores(0, np.concatenate([final[:decide], before[decide:stop]]), there[:stop])
            part, tags = slice(decided, decide), np.zeros(final.shape[1], np.float32)
            found.append(CellScores("door", 0, decided, final[part], there[part], tags, 0, stop, newest))
            decided = decide
    return found


def told(tracker: EventTracker, pieces: list[CellScores]) -> list[tuple[int, Onset | Offset]]:
    """Each event, and how many cells had been heard when it was told."""
    found = [(piece.tags_stop, event) for piece in pieces for event in tracker.push(piece)]
    return found + [(pieces[-1].tags_stop, event) for event in tracker.flush("silence")]


def test_sure_cells_raise_an_event_long_before_they_are_decided() -> None:
    scores = column((30, 0.1), (1, 0.4), (2, 0.6), (12, 0.9), (35, 0.1))
    early, late = (told(tracker_of(PLAIN, one), pieces_of(scores, scores)) for one in (0.7, NOT_EARLY))
    (heard, onset), (_, offset) = early
    assert isinstance(onset, Onset)
    assert isinstance(offset, Offset)
    assert heard == 40, "the first run that has the fifth cell of 0.9, which is cell 37"
    assert (onset.early, onset.trigger) == (True, 37 * CELL)
    assert onset.score == pytest.approx(0.9)
    assert onset.onset == offset.onset == 31 * CELL, "from where it reaches the onset threshold"
    assert offset.offset == 45 * CELL
    assert offset.peak == pytest.approx(0.9)
    assert offset.confidence == pytest.approx((2 * 0.6 + 12 * 0.9) / 14)
    (later, final), (_, end) = late
    assert isinstance(final, Onset)
    assert (later, final.early) == (48, False)
    assert end.onset == final.onset == onset.onset
    assert isinstance(end, Offset)
    assert end.offset == offset.offset


@pytest.mark.parametrize(
    ("run", "early_threshold", "onset_threshold"),
    [((EARLY_CELLS - 1, 0.9), 0.7, 0.5), ((12, 0.69), 0.7, 0.5), ((12, 0.9), NOT_EARLY, 0.5), ((12, 0.8), 0.7, 0.85)],
    ids=["too few", "too low", "never", "below the class's own threshold"],
)
def test_nothing_else_does(run: tuple[int, float], early_threshold: float, onset_threshold: float) -> None:
    final = column((90, 0.1))
    before = column((40, 0.1), run, (90 - 40 - run[0], 0.1))
    decoding = Decoding(("Dog",), (ClassDecoding(onset_threshold, 0.3, 5),))
    assert told(tracker_of(decoding, early_threshold), pieces_of(final, before)) == []


def test_what_was_told_stands_also_if_the_final_scores_deny_it() -> None:
    final = column((90, 0.2))
    before = column((40, 0.1), (8, 0.9), (42, 0.1))
    (_, onset), (_, offset) = told(tracker_of(PLAIN), pieces_of(final, before))
    assert isinstance(onset, Onset)
    assert isinstance(offset, Offset)
    assert onset.event_id == offset.event_id
    assert onset.onset == offset.onset == 40 * CELL
    assert offset.offset == 45 * CELL == onset.trigger + CELL, "active up to what raised it"
    assert offset.confidence == offset.peak == pytest.approx(0.2), "which is how the denial is seen"


def test_an_onset_that_was_told_is_not_told_again_where_the_final_scores_put_it() -> None:
    final = column((34, 0.1), (16, 0.9), (40, 0.1))
    before = column((40, 0.1), (10, 0.9), (40, 0.1))
    (_, onset), (_, offset) = told(tracker_of(PLAIN), pieces_of(final, before))
    assert onset.onset == offset.onset == 40 * CELL
    assert isinstance(offset, Offset)
    assert offset.offset == 50 * CELL


def test_an_epoch_that_breaks_off_ends_an_early_event_after_what_raised_it() -> None:
    scores = column((40, 0.1), (20, 0.9))
    tracker = tracker_of(PLAIN)
    (onset,) = [event for piece in pieces_of(scores, scores)[:-3] for event in tracker.push(piece)]
    (offset,) = tracker.flush("gap")
    assert isinstance(onset, Onset)
    assert isinstance(offset, Offset)
    assert (onset.onset, offset.offset, offset.end_reason) == (40 * CELL, onset.trigger + CELL, "gap")
    assert offset.confidence == offset.peak == onset.score


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(1, 20), st.integers(0, 30), st.integers(1, 30),
    st.floats(0.4, 1.0),
)  # fmt: skip
def test_whatever_undecided_cells_say_events_are_whole_and_in_order(
    seed: int, cells: int, hop: int, lookahead: int, max_event_cells: int, early_threshold: float
) -> None:
    final, before = smooth(seed, cells, 2), smooth(seed + 1, cells, 2)
    tracker = tracker_of(TWO, early_threshold, max_event_cells)
    open_events: dict[str, Onset] = {}
    last_offset = dict.fromkeys(TWO.classes, 0)
    for _, event in told(tracker, pieces_of(final, before, hop, lookahead)):
        if isinstance(event, Onset):
            assert event.label not in open_events
            assert last_offset[event.label] <= event.onset <= event.trigger
            if event.early:
                assert event.score >= early_threshold
            open_events[event.label] = event
        else:
            began = open_events.pop(event.label)
            assert (began.event_id, began.onset) == (event.event_id, event.onset)
            assert event.offset > event.onset
            assert event.end_reason == "max_duration" or event.offset > began.trigger
            assert 0 <= event.confidence <= event.peak <= 1
            last_offset[event.label] = event.offset
    assert not open_events
