"""Files that must be nobody else's: keys and tokens. A loose one is refused, with the command that mends it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shlex import quote

from streamer.errors import KeysError

_LONGEST_FILE = 65_536


def read_text(path: Path, *, secret: bool = True) -> str:
    """What is in a small file.

    Raises:
        KeysError: it can't be read, or is `secret` and others can get at it.

    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeysError(f"{path} is no file")
            if secret:
                _check_secret(path, status)
            return file.read(_LONGEST_FILE).decode(errors="replace")
    except OSError as error:
        raise KeysError(f"{path} can't be read: {error.strerror}") from None


def check_folder(folder: Path) -> None:
    """Raise `KeysError` if somebody else may write to it: who can add a file to a list can let himself in."""
    try:
        status = folder.stat()
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY  # as Kubernetes mounts secrets, with mode 1777
    except OSError as error:
        raise KeysError(f"{folder} can't be read: {error.strerror}") from None
    if not read_only and status.st_uid not in (0, os.geteuid()):
        raise KeysError(f"{folder} belongs to another user: `sudo chown {os.geteuid()} {quote(str(folder))}`")
    if not read_only and stat.S_IMODE(status.st_mode) & 0o022:
        raise KeysError(f"{folder} can be written to by other users: `chmod 700 {quote(str(folder))}`")


def _check_secret(path: Path, status: os.stat_result) -> None:
    """A secret is its owner's alone; one that root mounted (Kubernetes, Docker) may also be for a group to read."""
    if status.st_uid not in (0, os.geteuid()):
        raise KeysError(f"{path} belongs to another user: `sudo chown {os.geteuid()} {quote(str(path))}`")
    mounted = status.st_uid == 0 and os.geteuid() != 0
    if stat.S_IMODE(status.st_mode) & (0o037 if mounted else 0o077):
        raise KeysError(f"{path} is a secret that other users can get at: `chmod 600 {quote(str(path))}`")
