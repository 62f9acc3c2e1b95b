"""The first moments of a command, while its modules load."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType

_NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def not_loaded(program: str, error: ImportError) -> int:
    """Say in one line which package can't be loaded; gives the exit code."""
    if isinstance(error, ModuleNotFoundError):
        problem = f"the package {error.name} is missing: install it, or earwitness again"
    else:
        problem = f"the package {error.name or 'that is needed'} can't be loaded: {' '.join(str(error).split())}"
    sys.stderr.write(f"{program}: error: {problem}\n")
    return 1


class EndsAtOnce:
    """While the block runs, Ctrl-C and SIGTERM end the process with one line and 130 or 143, without a traceback.

    Only where nothing has to be cleaned up. Half-loaded libraries turn a KeyboardInterrupt into any error, or into
    none. A signal that the process was started to ignore stays ignored.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        try:
            for number in _NAMES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._end)
        except ValueError:
            pass  # not the main thread: signals are somebody else's

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        # Not `sys.stderr`, in whose middle the signal may have come.
        os.write(2, f"{self._program}: error: {_NAMES[signal.Signals(number)]}\n".encode())
        os._exit(128 + number)
