"""SHA-256 of media, which identify clips. A file that has not changed is read for its hash only once.

`FEATURES/hashes.json` remembers path, size, time of modification, time of change and inode with each hash. It is only
a shortcut: without it, or if it is damaged, all media are read again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
from tqdm import tqdm

from streamer.errors import EarwitnessError

FILE = "hashes.json"
_LOCK = ".hashes.lock"
_SETTLED_NS = 2_000_000_000
"""A file that was changed later than this before it was read may change again without another time: it is not
remembered. File systems count time in steps of up to 2 s."""
_THREADS = 4
_log = logging.getLogger(__name__)


class _Known(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file as it was when it was read."""

    size: int
    mtime_ns: int
    ctime_ns: int  # also changes where a program sets the time of modification back
    inode: int
    sha256: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    media: dict[str, _Known]


def media_sha256(path: Path) -> str:
    """The hash that identifies a clip. Raises `EarwitnessError` if the file can't be read."""
    return _read(path).sha256


def hashed(clips: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Clips with their media's SHA-256; `folder` is that of the features, where known ones are remembered.

    Safe for several processes at once.

    Raises:
        EarwitnessError: a clip can't be read.

    """
    names = {path: _name(path) for path in clips}
    known = _remembered(folder)
    found = {path: known[name] for path, name in names.items() if name in known and _same(path, known[name])}
    unknown = [path for path in names if path not in found]
    started_ns = time.time_ns()
    with ThreadPoolExecutor(_THREADS) as threads:
        new = dict(
            zip(
                unknown,
                tqdm(threads.map(_read, unknown), total=len(unknown), desc="hashing", unit="clip", delay=2),
                strict=True,
            )
        )
    settled = {
        names[path]: one for path, one in new.items() if max(one.mtime_ns, one.ctime_ns) < started_ns - _SETTLED_NS
    }
    if settled:
        _remember(folder, settled)
    return {path: (found.get(path) or new[path]).sha256 for path in names}


def _name(path: Path) -> str:
    """The path as text that JSON can hold. If two are alike, what is remembered of one does not fit the other."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def _read(path: Path) -> _Known:
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise EarwitnessError(f"{path}: can't be read: {error.strerror}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise EarwitnessError(f"{path}: changed while it was being read: run the command again")
    return _Known(before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino, sha256)


def _same(path: Path, known: _Known) -> bool:
    try:
        now = path.stat()
    except OSError as error:
        raise EarwitnessError(f"{path}: can't be read: {error.strerror}") from None
    return (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino) == (
        known.size,
        known.mtime_ns,
        known.ctime_ns,
        known.inode,
    )


def _remembered(folder: Path) -> Mapping[str, _Known]:
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).media
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("%s: can't be read (%s): all media are read again", path, " ".join(str(error).split()))
        return {}


def _remember(folder: Path, new: Mapping[str, _Known]) -> None:
    if not folder.is_dir():
        return
    try:
        with (folder / _LOCK).open("w") as lock:  # held until it is closed
            fcntl.flock(lock, fcntl.LOCK_EX)
            part = folder / (FILE + ".part")
            part.write_bytes(msgspec.json.encode(_File(1, {**_remembered(folder), **new})))
            part.replace(folder / FILE)
    except OSError as error:
        _log.warning("%s: can't be written (%s): media are read at every start", folder / FILE, error.strerror)
