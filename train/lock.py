"""One command at a time writes into a folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from streamer.errors import EarwitnessError

_PATIENCE_S = 3.0
"""The workers of a command that was killed end a moment later."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it. The system lets go of it when the process and its workers end, however they end.

    Raises:
        EarwitnessError: another process writes there, or it can't be written.

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
                raise EarwitnessError(f"{folder}: another earwitness-train writes there: wait for it, or end it")
            time.sleep(0.1)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its worker processes hold it too, for they write as well
    except BlockingIOError:
        return False
    return True
