"""The store's tables, and the migrations from older schemas."""

from __future__ import annotations

import sqlite3

from streamer.sinks.wire import OffsetMessage, OnsetMessage, StatusMessage, encode, kind, topic

APPLICATION_ID = 0x45617257
"""Identifies the SQLite file as an event store (in its header)."""

MIGRATIONS: tuple[str, ...] = (
    # `message` is the JSON that was sent. The other columns are for queries: `at_utc_s` is the onset, or the time of
    # sending if the onset's UTC is unknown. AUTOINCREMENT: a number is never used twice, even if rows are removed.
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE messages (
        stored_seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        topic TEXT NOT NULL,
        stream TEXT NOT NULL,
        class TEXT,
        event_id TEXT,
        at_utc_s REAL NOT NULL,
        sent_utc_s REAL NOT NULL,
        confidence REAL,
        message BLOB NOT NULL
    );
    CREATE INDEX events_by_id ON messages (event_id) WHERE event_id IS NOT NULL;
    CREATE INDEX events_by_time ON messages (at_utc_s) WHERE event_id IS NOT NULL;
    CREATE TABLE evidence (stored_seq INTEGER PRIMARY KEY, evidence BLOB NOT NULL);
    CREATE TABLE open_events (event_id TEXT PRIMARY KEY, onset BLOB NOT NULL) WITHOUT ROWID;
    """,
)
"""The migrations to schema 1, 2, ... A store's schema is the number of migrations that were applied to it."""
SCHEMA = len(MIGRATIONS)

Storable = OnsetMessage | OffsetMessage | StatusMessage
"""The messages that are stored. Tags, scores and heartbeats are not: they are of no use later."""


def schema_of(connection: sqlite3.Connection) -> int:
    """The store's schema; 0: it has no tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Migrate the store to the newest schema, each step in a transaction. Raises `sqlite3.Error`."""
    for number in range(schema_of(connection), len(migrations)):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {migrations[number]}; PRAGMA user_version = {number + 1};"
                f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


def get_meta(connection: sqlite3.Connection, name: str) -> str | int | float | None:
    """A value from the table `meta`; None if it was never set."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def set_meta(connection: sqlite3.Connection, name: str, value: str | float) -> None:
    """Set a value in the table `meta`."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
    )


INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def row_of(message: Storable) -> tuple[object, ...]:
    """The numbered message as a row for `INSERT`."""
    label = event_id = began_s = confidence = None
    if not isinstance(message, StatusMessage):
        label, event_id, began_s = message.label, message.event_id, message.onset_utc_s
        confidence = message.confidence if isinstance(message, OffsetMessage) else message.score
    at_utc_s = message.sent_utc_s if began_s is None else began_s
    sent = (at_utc_s, message.sent_utc_s, confidence, encode(message))
    return (message.stored_seq, kind(message), topic(message), message.stream, label, event_id, *sent)
