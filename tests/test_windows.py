from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.types import Bools, Cells, Floats, Window
from streamer.windows import Coverage, Windower

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 2), "vgg16": (3,)}


def windower_of(
    present: tuple[str, ...] = ("spectral",), *, window: int = 40, hop: int = 8, lookahead: int = 5, skew: int = 6
) -> Windower:
    return Windower(
        "door", 2, SHAPES, present, window_cells=window, hop_cells=hop, lookahead_cells=lookahead, skew_cells=skew
    )


def media(modality: str, cells: int, invalid: float = 0.0, seed: int = 0) -> tuple[Floats, Bools]:
    random = np.random.default_rng(seed)
    values = random.random((cells, *SHAPES[modality])).astype(np.float32)
    valid = random.random(cells) >= invalid
    values[~valid] = 0
    return values, valid


def block(given: tuple[Floats, Bools], start: int, stop: int) -> Cells:
    return Cells(start, given[0][start:stop], given[1][start:stop])


def streamed(windower: Windower, given: tuple[Floats, Bools], cuts: list[int], held_back: int = 0) -> list[Window]:
    """Spectral cells in pieces; the last `held_back` of them come out of the extractor's flush."""
    cells = len(given[1])
    body = cells - min(held_back, cells)
    edges = [0, *sorted(min(cut, body) for cut in cuts), body]
    windows: list[Window] = []
    for start, stop in itertools.pairwise(edges):
        windows += windower.push("spectral", block(given, start, stop))
    return windows + windower.flush(cells, {"spectral": block(given, body, cells)})


def assert_same(one: list[Window], other: list[Window]) -> None:
    assert [(w.start, len(w), w.emit_start, w.emit_stop) for w in one] == [
        (w.start, len(w), w.emit_start, w.emit_stop) for w in other
    ]
    for left, right in zip(one, other, strict=True):
        for name in SHAPES:
            assert np.array_equal(left.features[name], right.features[name])
            assert np.array_equal(left.valid[name], right.valid[name])


cells_and_cuts = st.integers(0, 130).flatmap(
    lambda cells: st.tuples(st.just(cells), st.lists(st.integers(0, cells), max_size=10))
)


@given(cells_and_cuts, st.integers(1, 12), st.integers(0, 12), st.integers(0, 20), st.integers(0, 3))
def test_every_cell_is_decided_once_with_its_context_however_the_cells_came(
    case: tuple[int, list[int]], hop: int, lookahead: int, spare: int, held_back: int
) -> None:
    cells, cuts = case
    window = hop + lookahead + spare
    data = media("spectral", cells, invalid=0.2)
    windows = streamed(windower_of(window=window, hop=hop, lookahead=lookahead), data, cuts, held_back)
    assert [cell for w in windows for cell in range(w.emit_start, w.emit_stop)] == list(range(cells))
    for index, one in enumerate(windows):
        stop = one.start + len(one)
        assert one.emit_start < one.emit_stop <= stop
        assert one.start == max(stop - window, 0) <= one.emit_start
        if index < len(windows) - 1:
            assert stop % hop == 0
            assert one.emit_stop == stop - lookahead
        assert np.array_equal(one.features["spectral"], data[0][one.start : stop])
        assert np.array_equal(one.valid["spectral"], data[1][one.start : stop])
        assert not one.valid["vgg16"].any()
        assert one.features["vgg16"].shape == (len(one), 3)
    assert_same(windows, streamed(windower_of(window=window, hop=hop, lookahead=lookahead), data, [], held_back))


@given(st.integers(1, 100), st.lists(st.booleans(), max_size=200), st.integers(0, 6))
def test_two_modalities_in_any_order_within_the_skew_make_the_same_windows(
    cells: int, turns: list[bool], lead: int
) -> None:
    data = {name: media(name, cells, seed=seed) for seed, name in enumerate(SHAPES)}
    windower = windower_of(tuple(SHAPES), skew=6)
    arrived = dict.fromkeys(SHAPES, 0)
    windows: list[Window] = []
    for turn in turns:
        name, other = ("spectral", "vgg16") if turn else ("vgg16", "spectral")
        stop = min(cells, arrived[name] + 1)
        if stop - arrived[other] <= lead:
            windows += windower.push(name, block(data[name], arrived[name], stop))
            arrived[name] = stop
    rest = {name: block(data[name], arrived[name], cells) for name in SHAPES}
    windows += windower.flush(cells, rest)
    whole = windower_of(tuple(SHAPES)).flush(cells, {name: block(data[name], 0, cells) for name in SHAPES})
    assert_same(windows, whole)
    assert windower.coverage == Coverage(cells, cells, dict.fromkeys(SHAPES, 0), dict.fromkeys(SHAPES, 0))


def test_a_stalled_modality_holds_up_until_the_skew_and_is_masked_then() -> None:
    windower = windower_of(tuple(SHAPES), hop=4, lookahead=2, skew=6)
    sound, sight = media("spectral", 60), media("vgg16", 60)
    assert len(windower.push("spectral", block(sound, 0, 4))) == 0
    assert len(windower.push("vgg16", block(sight, 0, 4))) == 1
    assert windower.push("spectral", block(sound, 4, 10)) == []  # six behind: waited for
    late = windower.push("spectral", block(sound, 10, 12))
    assert [(w.emit_start, w.emit_stop) for w in late] == [(2, 6), (6, 10)]
    assert [w.valid["vgg16"].sum() for w in late] == [4, 4]
    assert windower.ready == 12
    assert len(windower.push("spectral", block(sound, 12, 20))) == 2  # and no longer held up


def test_cells_that_come_after_their_window_are_dropped_from_all_windows() -> None:
    windower = windower_of(tuple(SHAPES), hop=4, lookahead=2, skew=6)
    sound, sight = media("spectral", 60), media("vgg16", 60)
    windower.push("spectral", block(sound, 0, 20))
    windower.push("vgg16", block(sight, 0, 18))
    windows = windower.push("vgg16", block(sight, 18, 26))
    windows += windower.push("spectral", block(sound, 20, 32))
    windows += windower.flush(32, {"vgg16": block(sight, 26, 32)})
    valid = {
        cell: window.valid["vgg16"][cell - window.start]
        for window in windows
        for cell in range(window.start, 32)
        if cell < window.start + len(window)
    }
    assert [cell for cell, there in valid.items() if not there] == list(range(20))
    for window in windows:
        for index, there in enumerate(window.valid["vgg16"]):
            assert there == valid[window.start + index]
    assert windower.coverage == Coverage(32, 32, {"spectral": 0, "vgg16": 20}, {"spectral": 0, "vgg16": 20})


def test_one_modality_s_end_makes_no_other_one_late() -> None:
    windower = windower_of(tuple(SHAPES), hop=4, lookahead=2, skew=2)
    sound, sight = media("spectral", 30), media("vgg16", 30)
    last = {"spectral": block(sound, 0, 30), "vgg16": block(sight, 0, 30)}
    assert all(window.valid["vgg16"].all() for window in windower.flush(30, last))


def test_coverage_counts_each_cell_once() -> None:
    windower = windower_of()
    data = media("spectral", 100, invalid=0.3)
    streamed(windower, data, list(range(100)))
    there = int(data[1].sum())
    assert windower.coverage == Coverage(
        100, there, {"spectral": 100 - there, "vgg16": 100}, {"spectral": 0, "vgg16": 0}
    )
    twice = windower.coverage.plus(windower.coverage)
    assert (twice.cells, twice.covered, twice.masked["vgg16"]) == (200, 2 * there, 200)
    assert Coverage().plus(twice) == twice


def test_no_more_is_kept_than_a_window_needs() -> None:
    windower = windower_of()
    data = media("spectral", 3000)
    for cell in range(3000):
        windower.push("spectral", block(data, cell, cell + 1))
    assert len(windower._blocks["spectral"]) <= 40 + 8


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="present must be some of spectral, vgg16, not none"):
        windower_of(())
    with pytest.raises(ValueError, match="a window of 10 cells can't move by 8 and look 5 ahead"):
        windower_of(window=10)
    windower = windower_of()
    data = media("spectral", 20)
    with pytest.raises(ValueError, match="vgg16 is not among the modalities of the source"):
        windower.push("vgg16", block(media("vgg16", 3), 0, 3))
    with pytest.raises(ValueError, match="from 5 on do not follow 0 cells"):
        windower.push("spectral", block(data, 5, 9))
    windower.push("spectral", block(data, 0, 16))
    with pytest.raises(ValueError, match="can't end before cell 16"):
        windower.flush(12, {})


change = st.tuples(st.integers(0, 130), st.integers(1, 20), st.integers(0, 20), st.integers(0, 10))


@given(st.integers(1, 130), st.lists(change, max_size=4))
def test_settings_that_change_leave_no_cell_out_and_decide_none_twice(
    cells: int, changes: list[tuple[int, int, int, int]]
) -> None:
    windower, sound = windower_of(), media("spectral", cells)
    windows: list[Window] = []
    for cell in range(cells):
        for at, hop, lookahead, skew in changes:
            if at == cell:
                windower.retune(hop_cells=hop, lookahead_cells=lookahead, skew_cells=skew)
        windows += windower.push("spectral", block(sound, cell, cell + 1))
    windows += windower.flush(cells, {"spectral": block(sound, cells, cells)})
    assert [one for window in windows for one in range(window.emit_start, window.emit_stop)] == list(range(cells))
    for window in windows:
        assert window.start <= window.emit_start, "what is decided lies inside"
        assert len(window) <= 40
        assert np.array_equal(window.features["spectral"], sound[0][window.start : window.start + len(window)])


def test_settings_that_do_not_fit_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="a window of 40 cells"):
        windower_of().retune(hop_cells=30, lookahead_cells=20, skew_cells=0)
