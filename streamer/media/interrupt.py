"""Ends FFmpeg calls that block: the one thing that PyAV has no function for.

FFmpeg asks a callback about ten times a second whether to give up; PyAV's callback compares `time.monotonic()` with its
timeout, which is fixed when a source is opened. We put our own `monotonic` before it, which jumps far ahead for a
thread that has been interrupted or has waited too long, so that the timeout is over at once, whatever it waits for.
(Closing a container that another thread reads from crashes.) Should a later PyAV look at another clock, PyAV's own
timeout is left, an interruption ends a reader between two packets only, and who waits for it has to abandon its thread.
Resolving a host name can't be interrupted at all.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import av.container.core

_FAR_S = 1e9
_current = threading.local()


class Interrupt:
    """A switch that ends one source's reading from any thread, for good."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """End what blocks now and everything that would block later."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._event.is_set()


@contextmanager
def interruptible(interrupt: Interrupt, until_s: float = math.inf) -> Iterator[None]:
    """FFmpeg calls of this thread inside the block end soon after `interrupt` is set, or at `until_s` (monotonic)."""
    _current.interrupt, _current.until_s = interrupt, until_s
    try:
        yield
    finally:
        _current.interrupt = None


class _Clock:
    """Stands for the module `time` inside PyAV's container code."""

    def __init__(self) -> None:
        self._calls = 0

    def monotonic(self) -> float:
        interrupt: Interrupt | None = getattr(_current, "interrupt", None)
        now_s = time.monotonic()
        if interrupt is None or not (interrupt.is_set() or now_s >= _current.until_s):
            return now_s
        # Each answer is later than the one before by more than any timeout: PyAV may take one as the start of its wait.
        self._calls += 1
        return now_s + _FAR_S * self._calls

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def install() -> None:
    """Make PyAV's waiting interruptible in this process; done once, before the first source is opened."""
    core: Any = av.container.core
    if isinstance(getattr(core, "time", None), ModuleType):
        core.time = _Clock()
