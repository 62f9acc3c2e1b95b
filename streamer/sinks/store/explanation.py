"""Packs the evidence that the store keeps with an event's onset and offset, and reads it to explain the event."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from streamer.errors import StoreError, UsageError, WireError
from streamer.events import ClassDecoding, Decoding, filtered
from streamer.evidence import Evidence
from streamer.sinks.store.opening import read_only, store_error
from streamer.sinks.wire import OffsetMessage, OnsetMessage, StatusMessage, decode
from streamer.types import Bools, Floats


class _Packed(msgspec.Struct, frozen=True):
    start: int
    classes: list[str]
    onset_thresholds: list[float]
    offset_thresholds: list[float]
    median_cells: list[int]
    scores: bytes  # float32, little-endian, one row per cell
    covered: bytes  # a byte per cell


_UNPACK = msgspec.msgpack.Decoder(_Packed)


def packed(evidence: Evidence) -> bytes:
    """`evidence` in its stored form: about 3 bytes per cell and class."""
    each = evidence.decoding.per_class
    value = _Packed(
        start=evidence.start,
        classes=list(evidence.decoding.classes),
        onset_thresholds=[one.onset_threshold for one in each],
        offset_thresholds=[one.offset_threshold for one in each],
        median_cells=[one.median_cells for one in each],
        scores=evidence.scores.astype("<f4").tobytes(),
        covered=evidence.covered.astype(np.uint8).tobytes(),
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
        scores = np.frombuffer(value.scores, "<f4").astype(np.float32).reshape(-1, len(value.classes))
        covered = np.frombuffer(value.covered, np.uint8).astype(np.bool_)
        if len(scores) != len(covered):
            raise ValueError(f"{len(scores)} scores of {len(covered)} cells")
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise StoreError("damaged", f"the event's evidence is damaged: {error}") from None
    return Evidence(decoding, value.start, scores, covered)


@dataclass(frozen=True, slots=True)
class Explanation:
    """An event and the scores that raised it and ended it."""

    onset: OnsetMessage | None  # None: only the offset is stored
    offset: OffsetMessage | None  # None: it has not ended
    model: str  # empty: unknown
    decoding: Decoding
    cells: Sequence[int]  # indices in the epoch, ascending; the middle of a long event is not stored
    scores: Floats  # (n, classes), the posteriors of `cells`
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
    cells = sorted(known)
    scores = np.stack([known[cell][0] for cell in cells])
    covered = np.array([known[cell][1] for cell in cells], np.bool_)
    smooth = np.full(scores.shape, np.nan, np.float32)
    breaks = [index for index in range(1, len(cells)) if cells[index] != cells[index - 1] + 1]
    for begin, end in zip([0, *breaks], [*breaks, len(cells)], strict=True):
        for column, one_class in enumerate(decoding.per_class):
            part = slice(begin, end)
            column_scores = scores[part, column : column + 1]
            smooth[part, column] = filtered(column_scores, covered[part], one_class.median_cells)[:, 0]
    return Explanation(onset, offset, model, decoding, cells, scores, smooth, covered)


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
