"""Removes messages and evidence from a store to keep it within its limits."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from streamer.sinks.store.tables import get_meta, set_meta

_ROWS_A_STEP = 2000
"""Rows per step: about 20 ms of the publishing thread."""
_PAGES_A_STEP = 500
"""Free pages that one step returns to the file system."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a store."""

    keep_days: float
    keep_bytes: int


@dataclass(slots=True)
class Tally:
    """Number and bytes of the messages (JSON) and evidence in a store."""

    events: int = 0
    events_bytes: int = 0
    statuses: int = 0
    statuses_bytes: int = 0
    evidence: int = 0
    evidence_bytes: int = 0

    def add(self, kind: str, rows: int, size: int) -> None:
        """Add `rows` messages of `kind` with `size` bytes in total; negative: subtract."""
        if kind == "status":
            self.statuses += rows
            self.statuses_bytes += size
        else:
            self.events += rows
            self.events_bytes += size


def tally(connection: sqlite3.Connection) -> Tally:
    """Count the content of the store, with a full scan."""
    found = Tally()
    for kind, rows, size in connection.execute("SELECT kind, COUNT(*), SUM(LENGTH(message)) FROM messages GROUP BY 1"):
        found.add(kind, rows, size)
    found.evidence, found.evidence_bytes = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(evidence)), 0) FROM evidence"
    ).fetchone()
    return found


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file without its free pages."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def remove_some(connection: sqlite3.Connection, held: Tally, limits: Limits, now_utc_s: float) -> tuple[str, int]:
    """One step of removing content beyond the limits, within the caller's transaction.

    Age: removes the messages before the first one that is young enough. Messages after that one are kept whatever
    their time, because it may be wrong: a machine without a battery-backed clock starts with a wrong time.

    Size: removes the oldest of whichever takes the most space: evidence, statuses or events. So none displaces another.

    Returns:
        The limit that was exceeded (`age`, `size`, or empty: none), and the number of removed messages.

    """
    before_s = now_utc_s - limits.keep_days * _DAY_S
    oldest = connection.execute(
        "SELECT stored_seq, sent_utc_s FROM messages ORDER BY stored_seq LIMIT ?", (_ROWS_A_STEP,)
    ).fetchall()
    last = 0
    for stored_seq, sent_utc_s in oldest:
        if sent_utc_s >= before_s:
            break
        last = stored_seq
    if last:
        removed = _removed(connection, held, "stored_seq <= ?", (last,))
        _mark(connection, "events_from", last + 1)
        _mark(connection, "statuses_from", last + 1)
        return "age", removed
    if used_bytes(connection) <= limits.keep_bytes or not oldest:
        return "", 0
    if held.evidence_bytes > max(held.statuses_bytes, held.events_bytes):
        oldest_evidence = "SELECT stored_seq FROM evidence ORDER BY stored_seq LIMIT ?"
        _remove_evidence(connection, held, oldest_evidence, (_step(held.evidence),))
        return "size", 0
    statuses = held.statuses_bytes > held.events_bytes
    kind = "kind = 'status'" if statuses else "kind <> 'status'"
    mark = "statuses_from" if statuses else "events_from"
    begin = int(get_meta(connection, mark) or 1)
    (last,) = connection.execute(
        "SELECT MAX(stored_seq) FROM (SELECT stored_seq FROM messages "
        f"WHERE stored_seq >= ? AND {kind} ORDER BY stored_seq LIMIT ?)",
        (begin, _step(held.statuses if statuses else held.events)),
    ).fetchone()
    if last is None:
        return "", 0
    removed = _removed(connection, held, f"stored_seq BETWEEN ? AND ? AND {kind}", (begin, last))
    _mark(connection, mark, last + 1)
    return "size", removed


def shrink(connection: sqlite3.Connection) -> None:
    """Return free pages to the file system if there are many, as after the limit was lowered. Commits."""
    free, pages = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
    if free > pages // 4:
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})")  # `execute` would free one page


def _removed(connection: sqlite3.Connection, held: Tally, which: str, values: tuple[int, ...]) -> int:
    gone = 0
    query = f"SELECT kind, COUNT(*), SUM(LENGTH(message)) FROM messages WHERE {which} GROUP BY 1"
    for kind, rows, size in connection.execute(query, values).fetchall():
        held.add(kind, -rows, -size)
        gone += rows
    _remove_evidence(connection, held, f"SELECT stored_seq FROM messages WHERE {which}", values)
    connection.execute(f"DELETE FROM messages WHERE {which}", values)
    return gone


def _remove_evidence(connection: sqlite3.Connection, held: Tally, numbers: str, values: tuple[int, ...]) -> None:
    where = f"FROM evidence WHERE stored_seq IN ({numbers})"
    query = f"SELECT COUNT(*), COALESCE(SUM(LENGTH(evidence)), 0) {where}"
    rows, size = connection.execute(query, values).fetchone()
    held.evidence -= rows
    held.evidence_bytes -= size
    connection.execute(f"DELETE {where}", values)


def _step(rows: int) -> int:
    """How many of `rows` rows one step removes."""
    return max(1, min(_ROWS_A_STEP, rows // 10))


def _mark(connection: sqlite3.Connection, name: str, first: int) -> None:
    """Note the number from which on no event, or no status, has been removed."""
    set_meta(connection, name, max(first, int(get_meta(connection, name) or 1)))
