"""What a command does while its modules load."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType

Handlers = dict[int, object]
"""What handled each signal before, as `signal.signal` returns it."""
_NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def not_loaded(program: str, error: ImportError) -> int:
    """Print in one line which package can't be loaded; returns the exit code."""
    if isinstance(error, ModuleNotFoundError):
        problem = f"the package {error.name} is missing: install it, or reinstall earwitness"
    else:
        problem = f"the package {error.name or 'that is needed'} can't be loaded: {' '.join(str(error).split())}"
    sys.stderr.write(f"{program}: error: {problem}\n")
    return 1


def handle(signals: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Handlers:
    """Set `handler` for `signals`, but for those that are ignored. Does nothing outside the main thread."""
    before: Handlers = {}
    try:
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    except ValueError:
        pass  # only the main thread may handle signals
    return before


def restore(before: Handlers) -> None:
    """Set the handlers that `handle` replaced, and forget them."""
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
    before.clear()


class EndsAtOnce:
    """While the block runs, Ctrl-C and SIGTERM end the process with one line and 130 or 143, without a traceback.

    For use only where nothing has to be cleaned up. Half-loaded libraries turn a KeyboardInterrupt into some other
    error, or swallow it. A signal that was ignored when the process started stays ignored.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._before: Handlers = {}

    def __enter__(self) -> None:
        self._before = handle(_NAMES, self._end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._before)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        # Not `sys.stderr`: the signal may have interrupted a write to it.
        os.write(2, f"{self._program}: error: {_NAMES[signal.Signals(number)]}\n".encode())
        os._exit(128 + number)
