"""Writes to a store."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from streamer.errors import StoreError, WireError
from streamer.evidence import Evidence
from streamer.sinks.store.explanation import packed
from streamer.sinks.store.opening import inode_of, open_store, store_error
from streamer.sinks.store.retention import Limits, remove_some, shrink, tally, used_bytes
from streamer.sinks.store.tables import INSERT, Storable, get_meta, row_of, set_meta
from streamer.sinks.wire import OffsetMessage, OnsetMessage, decode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a store in numbers."""

    messages: int
    bytes: int  # of the file, without its free pages
    limit_bytes: int  # `store.keep_mb`
    free_bytes: int  # on its disk
    oldest_utc_s: float | None  # when the oldest message was sent


class Store:
    """Assigns `stored_seq` to messages and stores them. When a method returns, its changes are on the disk.

    Numbers continue across restarts and crashes. A method that raises has changed nothing.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        """Open the store at `path`, or create one. Raises `StoreError` as `open_store` does."""
        self.path = path
        self.limits = limits
        """May be changed at any time."""
        self._opened = open_store(path)
        self._connection = self._opened.connection
        try:
            self.id = str(get_meta(self._connection, "store"))
            """Random id; a new store has another one."""
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
            self.through: int = 0 if row is None else row[0]
            """The highest assigned `stored_seq`; its message may have been removed."""
            self._tally = tally(self._connection)
        except sqlite3.Error as error:
            self.close()
            raise store_error(path, error) from None

    @property
    def is_new(self) -> bool:
        """Whether the store was created just now."""
        return self._opened.is_new

    @property
    def moved(self) -> bool:
        """Whether the file at the path was moved, removed or replaced, so that readers no longer see our writes."""
        return inode_of(self.path) != self._opened.inode

    def append(self, messages: Sequence[Storable]) -> list[Storable]:
        """Store numbered messages, all or none; returns them with `store` and `stored_seq`. Raises `StoreError`."""
        kept = [
            msgspec.structs.replace(message, store=self.id, stored_seq=self.through + index)
            for index, message in enumerate(messages, 1)
        ]
        rows = [row_of(message) for message in kept]
        with self._transaction():
            self._connection.executemany(INSERT, rows)
            for message, row in zip(kept, rows, strict=True):
                if isinstance(message, OnsetMessage):
                    self._connection.execute(
                        "INSERT OR REPLACE INTO open_events VALUES (?, ?)", (message.event_id, row[-1])
                    )
                elif isinstance(message, OffsetMessage):
                    self._connection.execute("DELETE FROM open_events WHERE event_id = ?", (message.event_id,))
            if kept:
                set_meta(self._connection, "alive_utc_s", kept[-1].sent_utc_s)
        self.through += len(kept)
        for _, kind, *_, data in rows:
            self._tally.add(str(kind), 1, len(data))  # type: ignore[arg-type]
        return kept

    def explain(self, evidence: Sequence[tuple[int, Evidence]]) -> None:
        """Store the evidence of onsets and offsets, by their `stored_seq`. Raises `StoreError`."""
        rows = [(stored_seq, packed(one)) for stored_seq, one in evidence]
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO evidence VALUES (?, ?)", rows)
        self._tally.evidence += len(rows)
        self._tally.evidence_bytes += sum(len(data) for _, data in rows)

    def alive(self, utc_s: float) -> tuple[str, int]:
        """Note that the daemon is running at `utc_s`, and do one step of removing content beyond the limits.

        Returns:
            The limit that was exceeded (`age`, `size`, or empty: none), and the number of removed messages.

        Raises:
            StoreError: the store can't be written.

        """
        before = replace(self._tally)
        try:
            with self._transaction():
                set_meta(self._connection, "alive_utc_s", utc_s)
                why, count = remove_some(self._connection, self._tally, self.limits, utc_s)
            if not why:
                shrink(self._connection)
            return why, count
        except sqlite3.Error as error:
            raise store_error(self.path, error) from None
        except StoreError:
            self._tally = before
            raise

    def unfinished(self, run: str) -> tuple[list[OnsetMessage], float]:
        """The onsets without offset of runs other than `run`, and when the store's last daemon was known to be running.

        The onsets are in the order of `stored_seq`; the time is in Unix seconds. Raises `StoreError`.
        """
        try:
            rows = self._connection.execute("SELECT onset FROM open_events").fetchall()
            alive_utc_s = float(get_meta(self._connection, "alive_utc_s") or 0.0)
        except sqlite3.Error as error:
            raise store_error(self.path, error) from None
        found = []
        for (data,) in rows:
            try:
                onset = decode(data)
            except WireError as error:
                log.warning("event store %s: an open event can't be read and is left open: %s", self.path, error)
                continue
            if isinstance(onset, OnsetMessage) and onset.run != run:
                found.append(onset)
        return sorted(found, key=lambda onset: onset.stored_seq), alive_utc_s

    def newest_seq(self, run: str) -> int:
        """The `seq` of the newest message if it is from `run`, else 0. Raises `StoreError`."""
        try:
            row = self._connection.execute("SELECT message FROM messages ORDER BY stored_seq DESC LIMIT 1").fetchone()
            newest = None if row is None else decode(row[0])
        except sqlite3.Error as error:
            raise store_error(self.path, error) from None
        except WireError:
            return 0
        return newest.seq if newest is not None and newest.run == run else 0

    def content(self) -> Content:
        """The store's content in numbers. Raises `StoreError`."""
        try:
            row = self._connection.execute("SELECT sent_utc_s FROM messages ORDER BY stored_seq LIMIT 1").fetchone()
            return Content(
                messages=self._tally.events + self._tally.statuses,
                bytes=used_bytes(self._connection),
                limit_bytes=self.limits.keep_bytes,
                free_bytes=shutil.disk_usage(self.path.parent).free,
                oldest_utc_s=None if row is None else row[0],
            )
        except sqlite3.Error as error:
            raise store_error(self.path, error) from None
        except OSError as error:
            raise StoreError("io", f"event store {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file and release the lock. Never raises; a second call has no effect."""
        if self._opened.lock < 0:
            return
        try:
            self._connection.close()
        except sqlite3.Error as error:
            log.debug("event store %s: %s", self.path, error)
        os.close(self._opened.lock)
        self._opened.lock = -1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise store_error(self.path, error) from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.debug("event store %s: %s", self.path, error)
