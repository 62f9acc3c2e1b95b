"""The onset of an event is read from the newest posteriors of the run of the network that raised it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.decoding import ClassDecoding, Decoding
from streamer.events import EventTracker
from streamer.evidence import ScoreHistory
from streamer.filtering import filtered
from streamer.onsets import BACKDATE_CELLS
from streamer.types import CELL, CellScores, Floats, NewestScores, Offset, Onset

WINDOW_CELLS = 60
DECODING = Decoding(("Dog", "Cat"), (ClassDecoding(0.6, 0.4, 5), ClassDecoding(0.5, 0.5, 1)))
PLAIN = Decoding(("Dog",), (ClassDecoding(0.5, 0.3, 1),))


def tracker_of(decoding: Decoding, max_event_cells: int = 10_000) -> EventTracker:
    ids = count()
    return EventTracker("door", 0, decoding, max_event_cells=max_event_cells, new_id=lambda: f"event{next(ids)}")


def pieces_of(final: Floats, newest: Floats, hop: int, lookahead: int) -> list[CellScores]:
    """`final` (n, classes) as a stream's runs decide it; each sees `newest` in the cells that it had decided before."""
    there = np.ones(len(final), np.bool_)
    found, decided, stop = [], 0, 0
    while decided < len(final):
        stop = min(stop + hop, len(final))
        decide = len(final) if stop == len(final) else max(stop - lookahead, decided)
        if decide > decided:
            start = max(stop - WINDOW_CELLS, 0)
            window = np.concatenate([newest[start:decided], final[decided:stop]])
            again = NewestScores(start, window, there[start:stop])
            part = slice(decided, decide)
            tags = np.zeros(final.shape[1], np.float32)
            found.append(CellScores("door", 0, decided, final[part], there[part], tags, start, stop, again))
            decided = decide
    return found


def events_of(tracker: EventTracker, pieces: list[CellScores]) -> list[Onset | Offset]:
    return [event for piece in pieces for event in tracker.push(piece)] + tracker.flush("silence")


def column(*runs: tuple[int, float]) -> Floats:
    """Runs of (cells, posterior), (n, 1)."""
    return np.repeat(np.array([value for _, value in runs], np.float32), [cells for cells, _ in runs])[:, None]


def smooth(seed: int, cells: int, classes: int) -> Floats:
    noise = np.random.default_rng(seed).random((cells, classes))
    return np.stack([np.convolve(one, np.ones(7) / 7)[:cells] for one in noise.T], axis=1).astype(np.float32)


def test_the_onset_is_where_the_newest_posteriors_begin_the_run_that_fired() -> None:
    final = column((14, 0.1), (8, 0.8), (10, 0.1))
    newest = column((9, 0.1), (1, 0.6), (2, 0.4), (10, 0.8), (10, 0.1))  # 0.4 is above the offset threshold
    onset, offset = events_of(tracker_of(PLAIN), pieces_of(final, newest, 4, 2))
    assert isinstance(onset, Onset)
    assert isinstance(offset, Offset)
    assert (onset.onset, onset.trigger) == (offset.onset, onset.trigger) == (9 * CELL, 14 * CELL)
    assert offset.offset == 22 * CELL
    assert onset.score == offset.peak == pytest.approx(0.8)
    assert offset.confidence == pytest.approx((0.6 + 2 * 0.4 + 10 * 0.8) / 13), "of the posteriors that began it"


def test_posteriors_that_do_not_have_the_event_at_the_trigger_do_not_move_the_onset() -> None:
    final = column((4, 0.1), (2, 0.9), (8, 0.1))
    newest = column((4, 0.9), (10, 0.1))
    tracker = tracker_of(Decoding(("Dog",), (ClassDecoding(0.5, 0.3, 1),)))
    pieces = pieces_of(final, newest, 4, 2)
    told = NewestScores(0, newest[:8], np.ones(8, np.bool_))
    events = [event for piece in pieces for event in tracker.push(replace(piece, newest=told))]
    assert [event.onset for event in events if isinstance(event, Onset)] == [4 * CELL]


def test_a_single_cell_below_the_offset_threshold_ends_the_way_back() -> None:
    final = column((14, 0.1), (8, 0.8), (10, 0.1))
    newest = column((9, 0.1), (2, 0.9), (1, 0.2), (10, 0.8), (10, 0.1))
    onset, _ = events_of(tracker_of(PLAIN), pieces_of(final, newest, 4, 2))
    assert onset.onset == 12 * CELL


def test_an_onset_is_never_before_the_end_of_the_class_s_last_event() -> None:
    final = column((4, 0.1), (6, 0.9), (6, 0.1), (5, 0.9), (5, 0.1))
    newest = np.full_like(final, 0.9)
    first, end, second, _ = events_of(tracker_of(PLAIN), pieces_of(final, newest, 3, 2))
    assert first.onset == 0
    assert isinstance(end, Offset)
    assert second.onset == end.offset == 10 * CELL


def test_an_event_that_is_backdated_is_not_longer_than_the_limit() -> None:
    final = column((22, 0.1), (30, 0.9))
    newest = np.full_like(final, 0.9)
    events = events_of(tracker_of(PLAIN, max_event_cells=8), pieces_of(final, newest, 4, 2))
    offsets = [event for event in events if isinstance(event, Offset)]
    assert offsets[0].onset == 15 * CELL, "7 cells before the trigger, which is its eighth"
    assert max(event.offset - event.onset for event in offsets) == 8 * CELL
    assert [left.offset for left in offsets[:-1]] == [right.onset for right in offsets[1:]]


def test_the_way_back_is_limited() -> None:
    final = column((102, 0.1), (20, 0.9))
    onset, _ = events_of(tracker_of(PLAIN), pieces_of(final, np.full_like(final, 0.9), 8, 2))
    assert isinstance(onset, Onset)
    assert onset.trigger == 102 * CELL
    assert onset.onset == (102 - BACKDATE_CELLS) * CELL


@pytest.mark.parametrize("known", [0, 3])
def test_the_way_back_ends_with_the_cells_whose_filter_is_known(known: int) -> None:
    final = column((102, 0.1), (20, 0.9))
    pieces = pieces_of(final, np.full_like(final, 0.9), 8, 2)
    assert pieces[-3].start == 102
    start = 102 - known
    there = np.ones(len(final) - start, np.bool_)
    pieces[-3] = replace(pieces[-3], newest=NewestScores(start, np.full_like(final, 0.9)[start:], there))
    onset = events_of(tracker_of(Decoding(("Dog",), (ClassDecoding(0.5, 0.3, 3),))), pieces)[0]
    assert onset.onset == (102 - max(known - 1, 0)) * CELL


cases = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(1, 20), st.integers(0, 20))


@given(cases)
def test_posteriors_that_agree_with_the_final_ones_change_nothing(case: tuple[int, int, int, int]) -> None:
    seed, cells, hop, lookahead = case
    final = smooth(seed, cells, 2)
    pieces = pieces_of(final, final, hop, lookahead)
    blind = [replace(piece, newest=None) for piece in pieces]
    told, before = events_of(tracker_of(DECODING), pieces), events_of(tracker_of(DECODING), blind)
    assert told == before


@given(cases, st.integers(1, 30))
def test_whatever_the_newest_say_events_are_raised_by_the_final_ones(
    case: tuple[int, int, int, int], max_event_cells: int
) -> None:
    seed, cells, hop, lookahead = case
    final, newest = smooth(seed, cells, 2), smooth(seed + 1, cells, 2)
    open_events: dict[str, Onset] = {}
    last_offset = dict.fromkeys(DECODING.classes, 0)
    for event in events_of(tracker_of(DECODING, max_event_cells), pieces_of(final, newest, hop, lookahead)):
        if isinstance(event, Onset):
            assert last_offset[event.label] <= event.onset <= event.trigger
            each = DECODING.per_class[DECODING.classes.index(event.label)]
            assert event.score >= each.offset_threshold
            open_events[event.label] = event
        else:
            assert open_events.pop(event.label).onset == event.onset, "what was told does not move"
            assert 0 < event.offset - event.onset <= max_event_cells * CELL
            assert 0 <= event.confidence <= event.peak <= 1
            last_offset[event.label] = event.offset
    assert not open_events


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 12))
def test_the_evidence_has_what_the_onset_was_read_from(seed: int, hop: int, lookahead: int) -> None:
    final, newest = smooth(seed, 200, 2), smooth(seed + 1, 200, 2)
    history, tracker = ScoreHistory(DECODING), tracker_of(DECODING)
    for piece in pieces_of(final, newest, hop, lookahead):
        history.push(piece)
        for event in tracker.push(piece):
            if not isinstance(event, Onset) or event.onset == event.trigger:
                continue
            evidence = history.of_onset(event.onset // CELL, event.trigger // CELL, early=False)
            assert evidence.newest is not None
            assert evidence.newest_until == event.trigger // CELL
            place = DECODING.classes.index(event.label)
            each = DECODING.per_class[place]
            again = evidence.newest
            curve = filtered(again.scores[:, place : place + 1], again.covered, each.median_cells)[:, 0]
            inside = curve[event.onset // CELL - again.start : event.trigger // CELL - again.start]
            assert (inside[~np.isnan(inside)] >= each.offset_threshold).all()
            assert len(inside) == (event.trigger - event.onset) // CELL
