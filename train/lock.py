"""Only one command at a time writes into a folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from streamer.errors import EarwitnessError

_PATIENCE_S = 3.0
"""How long to wait for the lock: the workers of a killed command end a moment after it."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Create `folder` and lock it. The system releases the lock when the process and its workers end, in any way.

    Raises:
        EarwitnessError: another process writes there, or the folder can't be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise EarwitnessError(f"{folder}: can't be written: {error.strerror}") from None
    with file:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not _locked(file):
            if time.monotonic() > deadline_s:
                raise EarwitnessError(f"{folder}: another earwitness-train is writing there: wait for it, or stop it")
            time.sleep(0.1)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # the worker processes inherit the lock, because they write too
    except BlockingIOError:
        return False
    return True
