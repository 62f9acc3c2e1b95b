"""Reads a store, also while a daemon writes to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import StoreError
from streamer.sinks.store.opening import inode_of, read_only, store_error
from streamer.sinks.store.tables import APPLICATION_ID, SCHEMA, get_meta, schema_of
from streamer.sinks.wire import OffsetMessage, OnsetMessage, decode

_ROWS_A_PAGE = 1000
"""Messages that are read for one page, whether they match or not."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a store's messages, in order."""

    store: str  # the store's id
    since: int  # the page begins after this number
    through: int  # every matching message up to this number is in `messages`, or was removed from the store
    newest: int  # the highest assigned number; its message may have been removed
    oldest: int  # no message that could match was removed from this number on
    messages: list[bytes]  # JSON, as stored

    @property
    def more(self) -> bool:
        """Whether there are messages after `through`."""
        return self.through < self.newest


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects events; empty or None: no restriction."""

    streams: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    since_utc_s: float | None = None  # events that began then or later, in Unix seconds
    until_utc_s: float | None = None  # events that began before this
    min_confidence: float | None = None  # for an open event: its onset's score


class History:
    """Reads one store. Not thread-safe. If the file at the path is replaced, the new one is read from then on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    def connection(self) -> sqlite3.Connection:
        """The open database.

        Raises:
            StoreError: there is no store, it is of a newer version, or it can't be read.

        """
        inode = inode_of(self._path)
        if self._connection is not None and inode == self._inode:
            return self._connection
        self.close()
        if inode is None:
            raise StoreError(
                "other", f"there is no event store {self._path}; name the daemon's with --store or --publisher"
            )
        if not self._path.is_file():
            raise StoreError("foreign", f"{self._path} is not an earwitness event store")
        connection = None
        try:
            connection = read_only(self._path)
            schema = schema_of(connection)
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise store_error(self._path, error) from None
        if not ours or schema > SCHEMA:
            connection.close()
            if not ours and not schema:
                raise StoreError("other", f"event store {self._path} is empty: no daemon has written to it yet")
            if not ours:
                raise StoreError("foreign", f"{self._path} is not an earwitness event store")
            raise StoreError(
                "newer",
                f"event store {self._path} was written by a newer earwitness (schema {schema}); update this one",
            )
        self._connection, self._inode = connection, inode
        return connection

    def page(self, store: str, since: int, prefixes: Sequence[str], limit: int, limit_bytes: int) -> Page:
        """The first messages after number `since` of the store `store` whose topics begin with one of `prefixes`.

        If `store` is another store's id, `since` is ignored and the page begins at the first message; an empty `store`
        means this one. At most `limit` messages and about `limit_bytes` bytes, but at least one message if any match.
        Raises `StoreError`.
        """
        connection = self.connection()
        try:
            here = str(get_meta(connection, "store"))
            since = since if store in ("", here) else 0
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
            newest = 0 if row is None else int(row[0])
            marks = [int(get_meta(connection, f"{kind}_from") or 1) for kind in _kinds(prefixes)]
            rows = connection.execute(
                "SELECT stored_seq, topic, message FROM messages WHERE stored_seq > ? AND stored_seq <= ? "
                "ORDER BY stored_seq LIMIT ?",
                (since, newest, _ROWS_A_PAGE),
            ).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise store_error(self._path, error) from None
        found: list[bytes] = []
        size, through = 0, since
        for stored_seq, topic, data in rows:
            if topic.startswith(tuple(prefixes)):
                if len(found) == limit or (found and size + len(data) > limit_bytes):
                    break
                found.append(data)
                size += len(data)
            through = stored_seq
        else:
            if len(rows) < _ROWS_A_PAGE:
                through = max(since, newest)
        return Page(here, since, through, newest, max(marks, default=1), found)

    def events(self, chosen: EventFilter) -> Iterator[OnsetMessage | OffsetMessage]:
        """The matching events in the order of their onsets: the offset of each, or the onset of an open event.

        Raises `StoreError`. Each page is a query of its own, so that a daemon that is writing is not blocked.
        """
        connection = self.connection()
        which, values = _condition(chosen)
        query = (
            f"SELECT at_utc_s, stored_seq, message FROM messages AS one WHERE {which} "
            "AND (at_utc_s, stored_seq) > (?, ?) AND (kind = 'offset' OR NOT EXISTS (SELECT 1 FROM messages AS other "
            "WHERE other.event_id = one.event_id AND other.kind = 'offset')) ORDER BY at_utc_s, stored_seq LIMIT ?"
        )
        after: tuple[float, int] = (float("-inf"), 0)
        while True:
            try:
                rows = connection.execute(query, (*values, *after, _ROWS_A_PAGE)).fetchall()
            except sqlite3.Error as error:
                raise store_error(self._path, error) from None
            for _, _, data in rows:
                message = decode(data)
                if isinstance(message, OnsetMessage | OffsetMessage):
                    yield message
            if len(rows) < _ROWS_A_PAGE:
                return
            after = rows[-1][:2]

    def close(self) -> None:
        """Close the file; it is reopened when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _condition(chosen: EventFilter) -> tuple[str, list[str | float]]:
    """The filter as an SQL condition, and its values."""
    parts, values = ["event_id IS NOT NULL"], list[str | float]()
    for column, names in (("stream", chosen.streams), ("class", chosen.classes)):
        if names:
            parts.append(f"{column} IN ({', '.join('?' * len(names))})")
            values += names
    for comparison, value in (
        ("at_utc_s >= ?", chosen.since_utc_s),
        ("at_utc_s < ?", chosen.until_utc_s),
        ("confidence >= ?", chosen.min_confidence),
    ):
        if value is not None:
            parts.append(comparison)
            values.append(value)
    return " AND ".join(parts), values


def _kinds(prefixes: Sequence[str]) -> list[str]:
    """The kinds of stored messages that can match."""
    return [
        kind
        for kind, first in (("events", "event/"), ("statuses", "status/"))
        if any(first.startswith(prefix) or prefix.startswith(first) for prefix in prefixes)
    ]
