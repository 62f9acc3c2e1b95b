"""Worker processes for long tasks: one thread each, and none outlives the command."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads

_LOOK_S = 0.5
"""Interval at which a worker checks that the command is still running."""


@contextmanager
def pool(
    workers: int, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that each call `begin(*arguments)` first. On an error, jobs that have not begun are dropped.

    Raises:
        EarwitnessError: a worker was killed.

    """
    executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(os.getpid(), begin, arguments))
    try:
        yield executor
    except BrokenProcessPool:
        raise EarwitnessError(
            "a worker process was killed, perhaps because memory ran out: run it again with fewer --workers"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def serve(command: int) -> None:
    """Make this process a worker of the process `command`: it has one thread, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes; no traceback from each
    threading.Thread(target=_end_with, args=(command,), daemon=True).start()
    use_threads(1)


def _begin(command: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    serve(command)
    if begin is not None:
        begin(*arguments)


def _end_with(command: int) -> None:
    """End when the command has ended: a killed command can't end its workers, which would wait forever."""
    while os.getppid() == command:
        time.sleep(_LOOK_S)
    os._exit(1)
