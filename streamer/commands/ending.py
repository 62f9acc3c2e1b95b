"""Ends a command that reads media or messages in its main thread on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from streamer.starting import Handlers, handle, restore

if TYPE_CHECKING:
    from streamer.media.interrupt import Interrupt


class EndsSoon:
    """While the block runs, Ctrl-C or SIGTERM sets `signal` and the current `interrupt()`; a second ends the program.

    A KeyboardInterrupt is unreliable: Python prints and drops it if it is raised inside a destructor, a callback of
    the garbage collector, or the callback by which FFmpeg asks whether to give up. A signal that was ignored when the
    process started stays ignored.
    """

    def __init__(self) -> None:
        self._interrupt: Interrupt | None = None
        self.signal: signal.Signals | None = None
        """The signal that arrived, if any."""
        self._before: Handlers = {}

    def interrupt(self) -> Interrupt:
        """A new interrupt for the next source. A signal sets it, and so does the source when it is closed."""
        from streamer.media.interrupt import Interrupt  # a command that reads no media does not wait for PyAV

        self._interrupt = Interrupt()
        if self.signal:  # it arrived between two sources
            self._interrupt.set()
        return self._interrupt

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells."""
        return 128 + (self.signal or 0)

    def again(self) -> None:
        """After the block: raise the signal that arrived, if any, so that it ends the program as usual."""
        if self.signal:
            signal.raise_signal(self.signal)

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
        if self._interrupt is not None:
            self._interrupt.set()
        restore(self._before)
