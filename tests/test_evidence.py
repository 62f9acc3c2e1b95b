"""The evidence of an event shows why the decoder raised and ended it."""

from __future__ import annotations

from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.decoding import ClassDecoding, Decoding
from streamer.events import EventTracker
from streamer.evidence import INSIDE_CELLS, OUTSIDE_CELLS, Evidence, ScoreHistory
from streamer.filtering import filtered
from streamer.types import CELL, CellScores, Floats, Offset, Onset

DECODING = Decoding(("Dog", "Cat"), (ClassDecoding(0.6, 0.4, 7), ClassDecoding(0.5, 0.5, 1)))


def decoded(scores: Floats, cuts: list[int]) -> list[tuple[Onset | Offset, Evidence]]:
    """The events of `scores` (n, 2), pushed in pieces, each with its evidence at that time."""
    ids = count()
    tracker = EventTracker("door", 0, DECODING, max_event_cells=10_000, new_id=lambda: str(next(ids)))
    history = ScoreHistory(DECODING)
    found: list[tuple[Onset | Offset, Evidence]] = []
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(scores)}), len(scores)]
    for start, stop in pairwise(edges):
        piece = scores[start:stop]
        one = CellScores("door", 0, start, piece, np.ones(len(piece), bool), np.zeros(2, np.float32), start, stop)
        history.push(one)
        for event in tracker.push(one):
            cell = event.offset if isinstance(event, Offset) else event.onset
            if isinstance(event, Offset):
                found.append((event, history.of_offset(cell // CELL)))
            else:
                found.append((event, history.of_onset(cell // CELL, event.trigger // CELL, early=False)))
    return found


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 899), min_size=20, max_size=60))
def test_the_filtered_score_of_the_evidence_crosses_the_threshold(seed: int, cuts: list[int]) -> None:
    noise = np.random.default_rng(seed).random((900, 2))
    scores = np.stack([np.convolve(column, np.ones(9) / 9, mode="same") for column in noise.T], axis=1)
    for event, evidence in decoded(scores.astype(np.float32), cuts):
        column = DECODING.classes.index(event.label)
        each = DECODING.per_class[column]
        smooth = filtered(evidence.scores[:, column : column + 1], evidence.covered, each.median_cells)[:, 0]
        cell = (event.offset if isinstance(event, Offset) else event.onset) // CELL - evidence.start
        assert 0 <= cell < len(smooth)
        if np.isnan(smooth[cell]):
            assert evidence.start == 0  # the filter extends before the epoch, where it uses zeros
        elif isinstance(event, Onset):
            assert smooth[cell] == np.float32(event.score) >= each.onset_threshold
        else:
            assert smooth[cell] < each.offset_threshold


def test_evidence_is_bounded_however_long_the_event() -> None:
    scores = np.zeros((6000, 2), np.float32)
    scores[1000:5000] = 0.9
    (onset, first), _, (offset, last), _ = decoded(scores, list(range(8, 6000, 8)))
    assert isinstance(onset, Onset)
    assert isinstance(offset, Offset)
    assert first.start == 1000 - OUTSIDE_CELLS
    assert last.start == 5000 - INSIDE_CELLS
    assert len(last.scores) <= INSIDE_CELLS + OUTSIDE_CELLS
    assert len(first.scores) <= INSIDE_CELLS + OUTSIDE_CELLS


@pytest.mark.parametrize("median_cells", [1, 3, 7])
def test_the_filter_is_nan_where_it_needs_unknown_cells(median_cells: int) -> None:
    scores = np.random.default_rng(0).random((20, 2)).astype(np.float32)
    smooth = filtered(scores, np.ones(20, bool), median_cells)
    half = median_cells // 2
    assert np.isnan(smooth[:half]).all()
    assert np.isnan(smooth[20 - half :]).all()
    assert (
        smooth[half : 20 - half, 0] == [np.median(scores[i - half : i + half + 1, 0]) for i in range(half, 20 - half)]
    ).all()
    assert np.isnan(filtered(scores[:2], np.ones(2, bool), 3)).all()
