"""Opens a store's file: locked, checked, migrated, and readable by its owner only. A damaged one is set aside."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from streamer.errors import StoreError
from streamer.sinks.store.tables import APPLICATION_ID, SCHEMA, get_meta, migrate, schema_of, set_meta

log = logging.getLogger(__name__)

_MAGIC = b"SQLite format 3\0"
_WAIT_S = 0.5
"""How long to wait for another program, such as the sqlite3 shell, that locks the database."""
_LOG_BYTES = 4 << 20
"""Size to which the write-ahead log is truncated after a checkpoint."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REASONS = {
    sqlite3.SQLITE_FULL: ("full", "the disk is full; make room"),
    sqlite3.SQLITE_IOERR: ("io", "the disk can't be read or written (or a limit on file size is reached)"),
    sqlite3.SQLITE_READONLY: ("denied", "it can't be written; let this user write to the file and its folder"),
    sqlite3.SQLITE_CANTOPEN: ("denied", "it can't be opened; let this user write to the file and its folder"),
    sqlite3.SQLITE_BUSY: ("busy", "another program is writing to it"),
    sqlite3.SQLITE_CORRUPT: ("damaged", "it is damaged"),
    sqlite3.SQLITE_NOTADB: ("damaged", "it is damaged"),
}
REASONS = frozenset({reason for reason, _ in _REASONS.values()} | {"newer", "taken", "foreign", "other"})
"""The reasons of `StoreError`."""


@dataclass(slots=True)
class Opened:
    """An open store that no other daemon can open."""

    connection: sqlite3.Connection
    lock: int  # a file descriptor; closing it releases the lock
    inode: tuple[int, int]  # device and inode of the file
    is_new: bool  # the store was created just now


def default_store_path(publisher: str, environ: Mapping[str, str]) -> Path:
    """The default path of the store of `publisher`, in the user's state folder."""
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "earwitness" / f"{publisher}.sqlite3"


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite's error as one line that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    reason, text = _REASONS.get(code, ("other", str(error)))
    return StoreError(reason, f"event store {path}: {text}")


def inode_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at `path`; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_only(path: Path) -> sqlite3.Connection:
    """A read-only connection, also while a daemon writes. Raises `sqlite3.Error`."""
    where = f"file:{quote(str(path.absolute()))}"
    logged = path.with_name(f"{path.name}-wal").exists()
    # SQLite needs to create a -shm file beside the database, unless it may assume that nobody writes (immutable).
    mode = "mode=ro" if logged or os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"
    return sqlite3.connect(f"{where}?{mode}", uri=True, isolation_level=None, timeout=_WAIT_S, check_same_thread=False)


def open_store(path: Path) -> Opened:
    """Open the store at `path`, or create one. A damaged store is renamed, which is logged, and a new one is created.

    Raises:
        StoreError: another daemon uses it, it is of a newer version, is not a store, or can't be written.

    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = _lock_path(path).exists()
        lock = _locked(path)
    except OSError as error:
        raise StoreError(
            "denied", f"event store {path}: {error.strerror}; let this user write there, or set another `store.path`"
        ) from None
    try:
        try:
            _refuse_foreign(path, known)
            connection = _checked(path)
        except StoreError as error:
            if error.reason != "damaged":
                raise
            aside = _set_aside(path)
            log.error("event store %s is damaged: it was renamed to %s, and a new one was created", path, aside)
            connection = _checked(path)
        is_new = get_meta(connection, "store") is None
        if is_new:
            set_meta(connection, "store", uuid.uuid4().hex[:12])
        inode = inode_of(path)
        assert inode is not None
        return Opened(connection, lock, inode, is_new)
    except sqlite3.Error as error:
        os.close(lock)
        raise store_error(path, error) from None
    except OSError as error:
        os.close(lock)
        raise StoreError("denied", f"event store {path}: {error.strerror}; let this user write there") from None
    except BaseException:
        os.close(lock)
        raise


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _locked(path: Path) -> int:
    """Lock out other daemons, with a file of its own: closing the database file would release SQLite's POSIX locks."""
    lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(
            "taken",
            f"event store {path} is in use by another earwitness (process {holder}), so this one stores nothing; "
            "give each daemon its own `publisher` or `store.path`",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _refuse_foreign(path: Path, known: bool) -> None:
    """Raise `StoreError` if the file must not be changed. `known`: a lock file shows that a store was here before."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    foreign = StoreError("foreign", f"{path} is not an earwitness event store; choose another `store.path`")
    if not path.is_file():
        raise foreign
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            if known:
                raise StoreError("damaged", f"event store {path} is damaged")
            raise foreign
    connection = read_only(path)
    try:
        schema = schema_of(connection)
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        if not ours and connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            raise foreign
    except sqlite3.Error as error:
        raise store_error(path, error) from None
    finally:
        connection.close()
    if schema > SCHEMA:
        raise StoreError(
            "newer",
            f"event store {path} was written by a newer earwitness (schema {schema}; this one supports up to {SCHEMA}),"
            " so nothing is stored; update this one, or set another `store.path`",
        )


def _checked(path: Path) -> sqlite3.Connection:
    """A connection to the store, checked and with its tables. Raises `StoreError` (`damaged`, or SQLite's error)."""
    # SQLite would create the file readable by all users.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=_WAIT_S, check_same_thread=False)
    try:
        if not schema_of(connection):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has no effect once there are tables
        else:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StoreError("damaged", f"event store {path} is damaged: {found}")
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut must not undo a commit whose message was sent: its number would be used twice.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(path, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> Path:
    """Rename the store and its -wal and -shm files; returns its new path. Raises `OSError`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
