"""Interrupts blocking FFmpeg calls, for which PyAV has no function.

FFmpeg asks a callback about ten times a second whether to give up. PyAV's callback compares `time.monotonic()` with a
timeout that is fixed when a source is opened. We replace that `monotonic` with our own, which jumps far ahead for a
thread that was interrupted or has waited too long, so that its timeout expires at once. (Closing a container while
another thread reads from it crashes.) If a later PyAV uses another clock, only its own timeout remains: an interrupt
then takes effect between two packets only, and a reader that hangs is abandoned. Resolving a host name can't be
interrupted at all.
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
    """A switch that ends the reading of one source for good, from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """End the call that blocks now and all later ones."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._event.is_set()


@contextmanager
def interruptible(interrupt: Interrupt, until_s: float = math.inf) -> Iterator[None]:
    """Within the block, FFmpeg calls of this thread end soon after `interrupt` is set, or at `until_s` (monotonic)."""
    _current.interrupt, _current.until_s = interrupt, until_s
    try:
        yield
    finally:
        _current.interrupt = None


class _Clock:
    """Replaces the module `time` inside PyAV's container code."""

    def __init__(self) -> None:
        self._calls = 0

    def monotonic(self) -> float:
        interrupt: Interrupt | None = getattr(_current, "interrupt", None)
        now_s = time.monotonic()
        if interrupt is None or not (interrupt.is_set() or now_s >= _current.until_s):
            return now_s
        # Each value exceeds the one before by more than any timeout, as PyAV may use one as the start of its wait.
        self._calls += 1
        return now_s + _FAR_S * self._calls

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def install() -> None:
    """Make PyAV's calls interruptible in this process. Call it before the first source is opened."""
    core: Any = av.container.core
    if isinstance(getattr(core, "time", None), ModuleType):
        core.time = _Clock()
