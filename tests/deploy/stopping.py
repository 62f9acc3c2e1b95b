"""Stops a single thread of a process, as if it hung in a C library."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_LIBC.ptrace.restype = ctypes.c_long
_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_WALL = 0x40000000


def busiest_thread(pid: int) -> int:
    """The thread with the highest CPU use, except the main one: the daemon's worker."""

    def ticks() -> dict[int, int]:
        found = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[int(task.name)] = int(fields[11]) + int(fields[12])
        return found

    before = ticks()
    time.sleep(3.0)
    spent = {thread: now - before.get(thread, 0) for thread, now in ticks().items() if thread != pid}
    return max(spent, key=lambda thread: spent[thread])


@contextmanager
def stopped(thread: int) -> Iterator[None]:
    """Stops the thread while the block runs (ptrace(2))."""
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        os.waitpid(thread, _WALL)
        yield
    finally:
        _ptrace(_DETACH, thread)


def _ptrace(request: int, thread: int) -> None:
    if _LIBC.ptrace(request, thread, None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
