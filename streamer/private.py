"""Reads keys and tokens. A file with unsafe permissions is refused; the error names the command that fixes them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shlex import quote

from streamer.errors import KeysError

_LONGEST_FILE = 65_536


def read_text(path: Path, *, secret: bool = True) -> str:
    """The content of a small file.

    Raises:
        KeysError: it can't be read, or is `secret` and accessible to other users.

    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeysError(f"{path} is not a regular file")
            if secret:
                _check_secret(path, status)
            return file.read(_LONGEST_FILE).decode(errors="replace")
    except OSError as error:
        raise KeysError(f"{path} can't be read: {error.strerror}") from None


def check_folder(folder: Path) -> None:
    """Raise `KeysError` if another user can write to it: whoever can add a file to the allow-list has access."""
    try:
        status = folder.stat()
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY  # as Kubernetes mounts secrets, with mode 1777
    except OSError as error:
        raise KeysError(f"{folder} can't be read: {error.strerror}") from None
    if not read_only and status.st_uid not in (0, os.geteuid()):
        raise KeysError(f"{folder} belongs to another user: `sudo chown {os.geteuid()} {quote(str(folder))}`")
    if not read_only and stat.S_IMODE(status.st_mode) & 0o022:
        raise KeysError(f"{folder} is writable by other users: `chmod 700 {quote(str(folder))}`")


def _check_secret(path: Path, status: os.stat_result) -> None:
    """Only its owner may read a secret; one mounted by root (Kubernetes, Docker) may also be readable by its group."""
    if status.st_uid not in (0, os.geteuid()):
        raise KeysError(f"{path} belongs to another user: `sudo chown {os.geteuid()} {quote(str(path))}`")
    mounted = status.st_uid == 0 and os.geteuid() != 0
    if stat.S_IMODE(status.st_mode) & (0o037 if mounted else 0o077):
        raise KeysError(f"{path} is secret, but accessible to other users: `chmod 600 {quote(str(path))}`")
