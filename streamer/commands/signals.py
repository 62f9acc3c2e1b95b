"""The daemon's signal handling. Only SIGKILL ends it without an offset for every onset."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU)
_REOPENS = (signal.SIGHUP, signal.SIGUSR1)
"""What log rotation sends: logrotate's examples name both."""
_MEANS_NOTHING = (
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
)
"""Without a handler each of these would end the process at once."""
_SAME_REQUEST_S = 1.0
"""A second signal within this time is the same request: a terminal and its wrapper (timeout, npm) may both send one."""
_HANG_UP_S = 1.0
"""How long after SIGHUP the terminal may disappear: a shell signals its jobs first, and then exits."""


class Signals:
    """Turns signals into three events, `stop`, `reopen` and `reload`, for the main thread.

    SIGHUP reopens the outputs and reloads the config, as in any daemon; SIGUSR1 only reopens. But if the daemon was
    started on a terminal that disappears, it ends as on SIGTERM: closing the window of a program is meant to end it.
    Under `nohup` it keeps running.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reopen = threading.Event()
        self.reload = threading.Event()
        self._asked_s = 0.0
        stays = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
        self._had_terminal = not stays and _has_terminal()
        for number in _REOPENS:
            signal.signal(number, self._reopen)
        for number in (*_MEANS_NOTHING, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)):
            signal.signal(number, signal.SIG_IGN)

    def take_over_ends(self) -> None:
        """From now on the daemon shuts down in order; before, it has published nothing, and a signal may kill it."""
        for number in _ENDS:
            signal.signal(number, self._end)

    def done(self) -> None:
        """Ignore signals: all offsets are out, and nothing must kill what remains or change its exit code."""
        for number in (*_ENDS, *_REOPENS):
            # Only this stays: as it exits, Python resets its own handlers to the default, which kills.
            signal.signal(number, signal.SIG_IGN)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        now_s = time.monotonic()
        if self.stop.is_set() and now_s - self._asked_s >= _SAME_REQUEST_S:  # asked twice: end at once
            os._exit(128 + number)
        if not self.stop.is_set():
            self._asked_s = now_s
        self.stop.set()

    def _reopen(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.reopen.set()
        if number == signal.SIGHUP:
            self.reload.set()
        if number == signal.SIGHUP and self._had_terminal:
            later = threading.Timer(_HANG_UP_S, self._end_without_terminal)
            later.daemon = True
            later.start()
            self._end_without_terminal()

    def _end_without_terminal(self) -> None:
        if not _has_terminal():
            self.stop.set()


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
