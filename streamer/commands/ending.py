"""How a command that reads media in its main thread is ended by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from streamer.media.interrupt import Interrupt


class EndsSoon:
    """While the block runs, Ctrl-C and SIGTERM end what reads with `interrupt()`; a second one ends the program.

    A KeyboardInterrupt can't be relied on there: Python may raise it inside the callback by which FFmpeg asks whether
    to give up, where PyAV prints and forgets it. A signal that the process was started to ignore stays ignored.
    """

    def __init__(self) -> None:
        self._interrupt = Interrupt()
        self.signal: signal.Signals | None = None
        """The signal that has come."""
        self._before: dict[int, object] = {}

    def interrupt(self) -> Interrupt:
        """One for the next source to be opened (which sets it for itself when it is closed); a signal sets it."""
        self._interrupt = Interrupt()
        if self.signal:  # it has come just now
            self._interrupt.set()
        return self._interrupt

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + (self.signal or 0)

    def __enter__(self) -> EndsSoon:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._end)
        except ValueError:
            pass  # not the main thread: signals are somebody else's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        self._interrupt.set()
        self._restore()
