"""An event's evidence in a real store: packing, merging, removal with its event, and one-line errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import StoreError, UsageError
from streamer.evidence import Evidence
from streamer.sinks.base import Numberer
from streamer.sinks.store.explanation import explanation, packed, unpacked
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.tables import Storable
from streamer.sinks.store.writing import Store
from tests import messages as make

AMPLE = Limits(keep_days=10_000, keep_bytes=10**9)
DECODING = Decoding(("Dog", "Cat"), (ClassDecoding(0.6, 0.4, 3), ClassDecoding(0.5, 0.3, 1)))


def evidence(start: int, cells: int) -> Evidence:
    scores = np.random.default_rng(start).random((cells, 2)).astype(np.float32)
    covered = np.ones(cells, np.bool_)
    covered[-1] = False
    return Evidence(DECODING, start, scores, covered)


def kept(numberer: Numberer, message: Storable) -> Storable:
    done = numberer.number(message)
    assert isinstance(done, Storable)
    return done


def store_with(path: Path, *starts: tuple[int, int]) -> None:
    """A store with a status, onset and offset of event `e1`, and their evidence as (start, cells)."""
    numberer = make.numberer()
    with closing(Store(path, AMPLE)) as store:
        store.append([kept(numberer, make.status())])
        stored = store.append([kept(numberer, make.onset()), kept(numberer, make.offset())])
        store.explain([(one.stored_seq, evidence(*span)) for one, span in zip(stored, starts, strict=False)])


def test_evidence_is_unpacked_as_it_was_packed() -> None:
    before = evidence(40, 30)
    after = unpacked(packed(before))
    assert after.start == 40
    assert (after.scores == before.scores).all()
    assert (after.covered == before.covered).all()
    assert [(one.onset_threshold, one.offset_threshold, one.median_cells) for one in after.decoding.per_class] == [
        (0.6, 0.4, 3),
        (0.5, 0.3, 1),
    ]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"?" + data[1:]])
def test_damaged_evidence_is_one_line(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    with pytest.raises(StoreError, match="evidence is damaged"):
        unpacked(damage(packed(evidence(0, 20))))


def test_overlapping_evidence_is_merged_and_the_model_is_found(tmp_path: Path) -> None:
    store_with(tmp_path / "s.sqlite3", (10, 30), (25, 30))
    found = explanation(tmp_path / "s.sqlite3", "e1")
    assert list(found.cells) == list(range(10, 55))
    assert found.model == "spectral"
    assert found.onset is not None
    assert found.offset is not None
    assert np.isnan(found.filtered[[0, -1], 0]).all()
    assert not np.isnan(found.filtered[1:-1, 0]).any()
    assert (
        found.filtered[:38, 1] == found.scores[:38, 1]
    ).all()  # a median of 1 cell; uncovered cells hold the previous value


def test_the_middle_of_a_long_event_is_a_hole_that_no_filter_crosses(tmp_path: Path) -> None:
    store_with(tmp_path / "s.sqlite3", (10, 30), (500, 30))
    found = explanation(tmp_path / "s.sqlite3", "e1")
    assert list(found.cells) == [*range(10, 40), *range(500, 530)]
    assert np.isnan(found.filtered[[29, 30], 0]).all()


def test_an_unknown_event_and_one_without_evidence_are_one_line(tmp_path: Path) -> None:
    store_with(tmp_path / "s.sqlite3")
    with pytest.raises(UsageError, match="has no event 'e2'"):
        explanation(tmp_path / "s.sqlite3", "e2")
    with pytest.raises(UsageError, match="no scores for it"):
        explanation(tmp_path / "s.sqlite3", "e1")
    with pytest.raises(StoreError, match="there is no event store"):
        explanation(tmp_path / "none.sqlite3", "e1")


def test_evidence_is_removed_with_its_event(tmp_path: Path) -> None:
    store_with(tmp_path / "s.sqlite3", (10, 30), (25, 30))
    with closing(Store(tmp_path / "s.sqlite3", Limits(keep_days=1, keep_bytes=10**9))) as store:
        assert store.alive(1_790_000_000 + 10 * 86_400) == ("age", 3)
    with closing(sqlite3.connect(tmp_path / "s.sqlite3")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM evidence").fetchone() == (0,)
