from __future__ import annotations

from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from streamer.decoding import ClassDecoding, Decoding
from streamer.events import EventTracker, decode_clip
from streamer.types import CELL, Bools, CellScores, EndReason, Floats, Offset, Onset


def decoding_of(*per_class: tuple[float, float, int]) -> Decoding:
    names = tuple(f"class{index}" for index in range(len(per_class)))
    return Decoding(names, tuple(ClassDecoding(*one) for one in per_class))


def piece(scores: Floats, covered: Bools, start: int) -> CellScores:
    return CellScores("door", 3, start, scores, covered, np.zeros(scores.shape[1], np.float32), start, start + 1)


def tracker_of(decoding: Decoding, max_event_cells: int = 10_000) -> EventTracker:
    ids = count()
    return EventTracker("door", 3, decoding, max_event_cells=max_event_cells, new_id=lambda: f"event{next(ids)}")


def tracked(
    scores: Floats,
    covered: Bools,
    decoding: Decoding,
    cuts: list[int],
    max_event_cells: int = 10_000,
    reason: EndReason = "gap",
) -> list[Onset | Offset]:
    tracker = tracker_of(decoding, max_event_cells)
    edges = [0, *sorted(min(cut, len(scores)) for cut in cuts), len(scores)]
    out: list[Onset | Offset] = []
    for start, stop in pairwise(edges):
        out += tracker.push(piece(scores[start:stop], covered[start:stop], start))
    return out + tracker.flush(reason)


def told(events: list[Onset | Offset]) -> set[tuple[object, ...]]:
    """Everything but the ids, which count pushes of several classes in another order."""
    return {
        (event.label, event.onset, event.offset, event.confidence, event.peak, event.end_reason)
        if isinstance(event, Offset)
        else (event.label, event.onset, event.score)
        for event in events
    }


def reference(scores: Floats, one: ClassDecoding) -> list[tuple[int, int]]:
    """Onset and offset cells of one class, cell by cell, with SciPy's median filter."""
    filtered = median_filter(scores, size=one.median_cells, mode="constant", cval=0.0)
    found, begin = [], None
    for cell, score in enumerate(filtered):
        if begin is None and score >= one.onset_threshold:
            begin = cell
        elif begin is not None and score < one.offset_threshold:
            found.append((begin, cell))
            begin = None
    return [*found, (begin, len(scores))] if begin is not None else found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Bools, Decoding, list[int]]:
    seed, cells = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 120))
    per_class = draw(
        st.lists(
            st.tuples(st.floats(0.3, 0.9), st.floats(0.1, 1.0), st.integers(0, 9).map(lambda half: 2 * half + 1)).map(
                lambda one: (one[0], one[0] * one[1], one[2])
            ),
            min_size=1,
            max_size=4,
        )
    )
    random = np.random.default_rng(seed)
    walk: NDArray[np.float64] = np.cumsum(random.normal(0, 0.25, (cells, len(per_class))), axis=0) + random.random()
    scores = np.abs(np.mod(walk, 2) - 1).astype(np.float32)  # a random walk that is reflected at 0 and 1
    covered = random.random(cells) < draw(st.sampled_from([1.0, 0.8]))
    scores[~covered] = 0
    return scores, covered, decoding_of(*per_class), draw(st.lists(st.integers(0, 120), max_size=12))


@given(cases())
def test_events_are_those_of_a_whole_array_median_filter_and_a_plain_loop(
    case: tuple[Floats, Bools, Decoding, list[int]],
) -> None:
    scores, covered, decoding, cuts = case
    held = scores.copy()
    for cell in range(len(held)):
        if not covered[cell]:
            held[cell] = held[cell - 1] if cell else 0
    events = [event for event in tracked(scores, covered, decoding, cuts) if isinstance(event, Offset)]
    for column, (label, one) in enumerate(zip(decoding.classes, decoding.per_class, strict=True)):
        mine = [event for event in events if event.label == label]
        expected = reference(held[:, column], one)
        assert [(event.onset // CELL, event.offset // CELL) for event in mine] == expected
        for event, (begin, end) in zip(mine, expected, strict=True):
            assert event.confidence == pytest.approx(held[begin:end, column].mean(dtype=float), abs=1e-9)
            assert event.peak == held[begin:end, column].max()
            assert event.end_reason == ("gap" if end == len(held) else "silence")


@given(cases(), st.integers(1, 40))
def test_the_way_in_which_cells_arrive_changes_nothing(
    case: tuple[Floats, Bools, Decoding, list[int]], max_event_cells: int
) -> None:
    scores, covered, decoding, cuts = case
    at_once = tracked(scores, covered, decoding, [], max_event_cells)
    assert told(tracked(scores, covered, decoding, cuts, max_event_cells)) == told(at_once)
    assert told(tracked(scores, covered, decoding, list(range(len(scores))), max_event_cells)) == told(at_once)


@given(cases(), st.integers(1, 40))
def test_each_onset_has_one_offset_and_a_class_one_event_at_a_time(
    case: tuple[Floats, Bools, Decoding, list[int]], max_event_cells: int
) -> None:
    scores, covered, decoding, cuts = case
    open_events: dict[str, Onset] = {}
    last_offset: dict[str, int] = {}
    ids = set()
    for event in tracked(scores, covered, decoding, cuts, max_event_cells):
        if isinstance(event, Onset):
            assert event.label not in open_events
            assert event.event_id not in ids
            assert event.onset >= last_offset.get(event.label, 0)
            ids.add(event.event_id)
            open_events[event.label] = event
        else:
            assert open_events.pop(event.label).event_id == event.event_id
            assert 0 < event.offset - event.onset <= max_event_cells * CELL
            assert 0 <= event.confidence <= event.peak <= 1
            last_offset[event.label] = event.offset
    assert not open_events


def column_of(*scores: float) -> Floats:
    return np.array(scores, np.float32)[:, None]


def test_an_event_begins_at_the_onset_threshold_and_lasts_until_below_the_offset_threshold() -> None:
    scores = column_of(0.4, 0.5, 0.3, 0.3, 0.2, 0.4)
    onset, offset = tracked(scores, np.ones(6, bool), decoding_of((0.5, 0.25, 1)), [])
    assert onset == Onset("event0", "door", 3, "class0", CELL, CELL, 0.5)
    assert isinstance(offset, Offset)
    assert (offset.onset, offset.offset, offset.end_reason, offset.peak) == (CELL, 4 * CELL, "silence", 0.5)


def test_the_mean_of_a_tiny_posterior_is_not_rounded_above_its_peak() -> None:
    """Posteriors are summed as fractions of 2^32, so the mean of a single one may come out a little higher."""
    tiny = 0.0007106907432898879
    (event,) = decode_clip("door", column_of(tiny), decoding_of((0.0001, 0.0001, 1)))
    assert event.confidence == event.peak == np.float32(tiny)


def test_a_long_event_is_closed_and_a_new_one_begins_at_once() -> None:
    events = tracked(
        column_of(*[0.9] * 7, 0.0), np.ones(8, bool), decoding_of((0.5, 0.5, 1)), [2, 5], max_event_cells=3
    )
    spans = [(e.onset // CELL, e.offset // CELL, e.end_reason) for e in events if isinstance(e, Offset)]
    assert spans == [(0, 3, "max_duration"), (3, 6, "max_duration"), (6, 7, "silence")]
    assert [type(event) for event in events] == [Onset, Offset] * 3
    assert len({event.event_id for event in events}) == 3


def test_an_event_of_exactly_the_longest_length_ends_in_silence() -> None:
    events = tracked(column_of(0.9, 0.9, 0.9, 0.0), np.ones(4, bool), decoding_of((0.5, 0.5, 1)), [], max_event_cells=3)
    assert [e.end_reason for e in events if isinstance(e, Offset)] == ["silence"]


def test_an_onset_is_told_half_a_median_filter_after_it_came_in() -> None:
    tracker = tracker_of(decoding_of((0.5, 0.5, 5)))
    ones = column_of(1.0)
    told_at = [bool(tracker.push(piece(ones, np.ones(1, bool), cell))) for cell in range(5)]
    assert told_at == [False, False, True, False, False]
    assert [event.onset for event in tracker.open_events] == [0]


def test_a_hole_holds_the_score_in_front_of_it() -> None:
    scores, covered = column_of(0.9, 0.9, 0.0, 0.0, 0.9, 0.1), np.array([1, 1, 0, 0, 1, 1], bool)
    events = tracked(scores, covered, decoding_of((0.5, 0.5, 1)), [3])
    assert [(e.onset, e.offset) for e in events if isinstance(e, Offset)] == [(0, 5 * CELL)]


def test_flush_closes_with_its_reason_once() -> None:
    tracker = tracker_of(decoding_of((0.5, 0.5, 1)))
    tracker.push(piece(column_of(0.9), np.ones(1, bool), 0))
    assert [event.end_reason for event in tracker.flush("shutdown") if isinstance(event, Offset)] == ["shutdown"]
    assert tracker.flush("shutdown") == []
    with pytest.raises(ValueError, match="can't follow"):
        tracker.push(piece(column_of(0.9), np.ones(1, bool), 1))


def test_cells_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="cell 5 can't follow"):
        tracker_of(decoding_of((0.5, 0.5, 1))).push(piece(column_of(0.9), np.ones(1, bool), 5))


@pytest.mark.parametrize(("onset", "offset", "median"), [(0.4, 0.5, 1), (0.5, 0.0, 1), (0.5, 0.5, 4), (1.1, 0.5, 1)])
def test_decoding_that_makes_no_sense_is_refused(onset: float, offset: float, median: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        ClassDecoding(onset, offset, median)


def test_decoding_must_fit_its_classes() -> None:
    one = ClassDecoding(0.5, 0.5, 1)
    with pytest.raises(ValueError, match="2 classes"):
        Decoding(("a", "b"), (one,))
    with pytest.raises(ValueError, match="different names"):
        Decoding(("a", "a"), (one, one))


@settings(max_examples=20)
@given(cases())
def test_decode_clip_is_the_tracker(case: tuple[Floats, Bools, Decoding, list[int]]) -> None:
    scores, _, decoding, cuts = case
    streamed = tracked(scores, np.ones(len(scores), bool), decoding, cuts, reason="silence")
    assert told([*decode_clip("door", scores, decoding)]) == told([e for e in streamed if isinstance(e, Offset)])


def test_a_limit_that_is_lowered_ends_what_is_longer_by_now() -> None:
    decoding = Decoding(("a",), (ClassDecoding(0.5, 0.4, 1),))
    tracker = tracker_of(decoding, max_event_cells=100)
    on = np.ones((10, 1), np.float32)
    out = [one for start in range(0, 50, 10) for one in tracker.push(piece(on, np.ones(10, bool), start))]
    assert [one.onset for one in out] == [0]
    tracker.limit(20)
    out = [one for start in range(50, 100, 10) for one in tracker.push(piece(on, np.ones(10, bool), start))]
    out += tracker.flush("gap")
    offsets = [one for one in out if isinstance(one, Offset)]
    assert [(one.onset // CELL, one.offset // CELL) for one in offsets] == [(0, 50), (50, 70), (70, 90), (90, 100)]
    assert [one.end_reason for one in offsets] == ["max_duration"] * 3 + ["gap"]
