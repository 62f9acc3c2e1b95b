"""Worker processes for long work: one thread each, and none outlives the command."""

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
"""How often a worker looks whether the command is still there."""


@contextmanager
def pool(
    workers: int, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that each call `begin(*arguments)` first. What was not begun is dropped on an error.

    Raises:
        EarwitnessError: a worker was killed.

    """
    executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(os.getpid(), begin, arguments))
    try:
        yield executor
    except BrokenProcessPool:
        raise EarwitnessError(
            "a worker process was killed, perhaps for want of memory: run it again with fewer --workers"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin(command: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C goes to all: without a traceback from each
    threading.Thread(target=_end_with, args=(command,), daemon=True).start()
    use_threads(1)
    if begin is not None:
        begin(*arguments)


def _end_with(command: int) -> None:
    """A command that is killed can't end its workers: they would wait for work for ever."""
    while os.getppid() == command:
        time.sleep(_LOOK_S)
    os._exit(1)
