"""Packs the evidence that the store keeps with an event's onset and offset, and reads it to explain the event."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import StoreError, UsageError, WireError
from streamer.evidence import Evidence
from streamer.filtering import filtered
from streamer.sinks.store.opening import read_only, store_error
from streamer.sinks.wire import OffsetMessage, OnsetMessage, StatusMessage, decode
from streamer.types import Bools, Floats, NewestScores


class _Packed(msgspec.Struct, frozen=True):
    start: int
    classes: list[str]
    onset_thresholds: list[float]
    offset_thresholds: list[float]
    median_cells: list[int]
    scores: bytes  # float32, little-endian, one row per cell
    covered: bytes  # a byte per cell
    # Added later, with defaults: the scores that dated an onset or raised it early, for cells before `trigger`.
    newest_start: int = 0
    newest_scores: bytes = b""
    newest_covered: bytes = b""
    trigger: int = 0


_UNPACK = msgspec.msgpack.Decoder(_Packed)


def packed(evidence: Evidence) -> bytes:
    """`evidence` in its stored form: about 3 bytes per cell and class."""
    each, newest = evidence.decoding.per_class, evidence.newest
    value = _Packed(
        start=evidence.start,
        classes=list(evidence.decoding.classes),
        onset_thresholds=[one.onset_threshold for one in each],
        offset_thresholds=[one.offset_threshold for one in each],
        median_cells=[one.median_cells for one in each],
        scores=evidence.scores.astype("<f4").tobytes(),
        covered=evidence.covered.astype(np.uint8).tobytes(),
        newest_start=0 if newest is None else newest.start,
        newest_scores=b"" if newest is None else newest.scores.astype("<f4").tobytes(),
        newest_covered=b"" if newest is None else newest.covered.astype(np.uint8).tobytes(),
        trigger=evidence.newest_until,
    )
    return zlib.compress(msgspec.msgpack.encode(value))


def unpacked(data: bytes) -> Evidence:
    """The inverse of `packed`. Raises `StoreError` (`damaged`)."""
    try:
        value = _UNPACK.decode(zlib.decompress(data))
        decoding = Decoding(
            tuple(value.classes),
            tuple(map(ClassDecoding, value.onset_thresholds, value.offset_thresholds, value.median_cells)),
        )
        scores, covered = _rows(value.scores, value.covered, len(value.classes))
        newest = NewestScores(value.newest_start, *_rows(value.newest_scores, value.newest_covered, len(value.classes)))
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise StoreError("damaged", f"the event's evidence is damaged: {error}") from None
    return Evidence(decoding, value.start, scores, covered, newest if len(newest.covered) else None, value.trigger)


def _rows(scores: bytes, covered: bytes, classes: int) -> tuple[Floats, Bools]:
    rows = np.frombuffer(scores, "<f4").astype(np.float32).reshape(-1, classes)
    flags = np.frombuffer(covered, np.uint8).astype(np.bool_)
    if len(rows) != len(flags):
        raise ValueError(f"{len(rows)} scores of {len(flags)} cells")
    return rows, flags


@dataclass(frozen=True, slots=True)
class Explanation:
    """An event and the scores that raised it and ended it."""

    onset: OnsetMessage | None  # None: only the offset is stored
    offset: OffsetMessage | None  # None: it has not ended
    model: str  # empty: unknown
    decoding: Decoding
    cells: Sequence[int]  # indices in the epoch, ascending; the middle of a long event is not stored
    scores: Floats  # (n, classes), the posteriors of `cells`: up to the trigger those that dated the onset
    filtered: Floats  # (n, classes), compared with the thresholds; NaN: the filter needs cells that are not stored
    covered: Bools  # (n,)


def explanation(path: Path, event_id: str) -> Explanation:
    """Explain an event from the store at `path`. A daemon may be writing to it.

    Raises:
        StoreError: the store can't be read.
        UsageError: the store does not contain the event, or no evidence of it.

    """
    if not path.exists():
        raise StoreError("denied", f"there is no event store {path}; name the daemon's with --store or --publisher")
    try:
        connection = read_only(path)
        try:
            rows = connection.execute(
                "SELECT message, evidence FROM messages LEFT JOIN evidence USING (stored_seq) "
                "WHERE event_id = ? ORDER BY stored_seq",
                (event_id,),
            ).fetchall()
            model = _model_of(connection, event_id)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise store_error(path, error) from None
    if not rows:
        raise UsageError(
            f"event store {path} has no event {event_id!r}; `earwitness events --format json` lists the ids"
        )
    messages = [decode(message) for message, _ in rows]
    evidence = [unpacked(data) for _, data in rows if data is not None]
    if not evidence:
        raise UsageError(f"event store {path} has event {event_id!r}, but no scores for it")
    onset = next((one for one in messages if isinstance(one, OnsetMessage)), None)
    offset = next((one for one in messages if isinstance(one, OffsetMessage)), None)
    return _joined(onset, offset, model, evidence)


def _joined(
    onset: OnsetMessage | None, offset: OffsetMessage | None, model: str, evidence: Sequence[Evidence]
) -> Explanation:
    """Merge the evidence of onset and offset. If there is a hole between them, each side is filtered separately."""
    decoding = evidence[0].decoding
    known: dict[int, tuple[Floats, bool]] = {}
    for one in evidence:
        for index in range(len(one.scores)):
            known[one.start + index] = (one.scores[index], bool(one.covered[index]))
    for one in evidence:
        if one.newest is not None:  # of the cells that raised an event early there may be no other scores
            for cell in range(max(one.start + len(one.scores), one.newest.start), one.newest_until):
                row = cell - one.newest.start
                known.setdefault(cell, (one.newest.scores[row], bool(one.newest.covered[row])))
    cells = sorted(known)
    scores = np.stack([known[cell][0] for cell in cells])
    covered = np.array([known[cell][1] for cell in cells], np.bool_)
    smooth = np.full(scores.shape, np.nan, np.float32)
    breaks = [index for index in range(1, len(cells)) if cells[index] != cells[index - 1] + 1]
    for begin, end in zip([0, *breaks], [*breaks, len(cells)], strict=True):
        part = slice(begin, end)
        smooth[part] = _filtered(scores[part], covered[part], decoding)
    for one in evidence:
        if one.newest is not None:
            newest_smooth = _filtered(one.newest.scores, one.newest.covered, decoding)
            for index, cell in enumerate(cells):
                row = cell - one.newest.start
                if row >= 0 and cell < one.newest_until:
                    scores[index] = one.newest.scores[row]
                    smooth[index] = np.where(np.isnan(newest_smooth[row]), smooth[index], newest_smooth[row])
    return Explanation(onset, offset, model, decoding, cells, scores, smooth, covered)


def _filtered(scores: Floats, covered: Bools, decoding: Decoding) -> Floats:
    """`events.filtered` with each class's own filter, (n, classes)."""
    columns = [
        filtered(scores[:, column : column + 1], covered, one.median_cells)
        for column, one in enumerate(decoding.per_class)
    ]
    return np.concatenate(columns, axis=1)


def _model_of(connection: sqlite3.Connection, event_id: str) -> str:
    """The stream's model when the event was stored; empty: unknown."""
    row = connection.execute(
        "SELECT message FROM messages WHERE kind = 'status' AND (stream, stored_seq) <= "
        "(SELECT stream, MIN(stored_seq) FROM messages WHERE event_id = ?) "
        "AND stream = (SELECT stream FROM messages WHERE event_id = ? LIMIT 1) ORDER BY stored_seq DESC LIMIT 1",
        (event_id, event_id),
    ).fetchone()
    try:
        status = None if row is None else decode(row[0])
    except WireError:
        return ""
    return status.model if isinstance(status, StatusMessage) else ""
