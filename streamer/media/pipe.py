"""Reads a pipe for PyAV, whose own reads would block in the kernel, where nothing can interrupt them."""

from __future__ import annotations

import os
import select

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.interrupt import Interrupt

_LOOK_MS = 100


class Pipe:
    """A file object for `av.open`: standard input, another open pipe, or a FIFO by its path. Not seekable.

    Reading waits for a writer without a time limit, and ends soon after `interrupt` is set.
    """

    def __init__(self, descriptor: int | None, address: Address, interrupt: Interrupt) -> None:
        """Without a `descriptor` the FIFO at `address` is opened. Raises `SourceError`."""
        self.name = address.shown
        self._interrupt = interrupt
        self._own = descriptor is None
        if descriptor is not None and os.isatty(descriptor):
            raise SourceError("other", f"{address}: standard input is a terminal: send a recording, e.g. with < FILE")
        try:
            # Opening does not wait for a writer; `read` does.
            self._descriptor = os.open(address.path, os.O_RDONLY | os.O_NONBLOCK) if descriptor is None else descriptor
            os.fstat(self._descriptor)
        except OSError as error:
            raise SourceError("other", f"{address}: can't be read ({os.strerror(error.errno or 0)})") from None
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end, or when interrupted."""
        while not self._interrupt.is_set():
            if self._poll.poll(_LOOK_MS):
                return os.read(self._descriptor, size)
        return b""

    def close(self) -> None:
        """Close the pipe if it was opened here. May be called repeatedly."""
        if self._own:
            self._own = False
            os.close(self._descriptor)
