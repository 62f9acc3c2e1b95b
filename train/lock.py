"""One command at a time writes into a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamer.errors import EarwitnessError


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it. The system lets go of it when the process ends, however it ends.

    Raises:
        EarwitnessError: another process writes there, or it can't be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise EarwitnessError(f"{folder}: can't be written: {error.strerror}") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: its workers don't hold it
        except OSError:
            raise EarwitnessError(f"{folder}: another earwitness-train writes there: wait for it, or end it") from None
        yield
