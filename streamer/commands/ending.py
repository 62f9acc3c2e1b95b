"""Ends a command that reads media in its main thread on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from streamer.media.interrupt import Interrupt
from streamer.starting import Handlers, handle, restore


class EndsSoon:
    """While the block runs, Ctrl-C or SIGTERM sets the current `interrupt()`; a second one ends the program.

    A KeyboardInterrupt is unreliable there: Python may raise it inside the callback by which FFmpeg asks whether to
    give up, and PyAV prints and drops it. A signal that was ignored when the process started stays ignored.
    """

    def __init__(self) -> None:
        self._interrupt = Interrupt()
        self.signal: signal.Signals | None = None
        """The signal that arrived, if any."""
        self._before: Handlers = {}

    def interrupt(self) -> Interrupt:
        """A new interrupt for the next source. A signal sets it, and so does the source when it is closed."""
        self._interrupt = Interrupt()
        if self.signal:  # it arrived between two sources
            self._interrupt.set()
        return self._interrupt

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> EndsSoon:
        self._before = handle((signal.SIGINT, signal.SIGTERM), self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._before)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        self._interrupt.set()
        restore(self._before)
