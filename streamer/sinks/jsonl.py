"""Messages as lines of JSON, appended to a file or written to standard output."""

from __future__ import annotations

import os
import select
import sys
import time

from streamer.errors import SinkError
from streamer.sinks.wire import Message, encode

_PATIENCE_S = 0.2
"""How long a pipe's reader may take to make room. Once it failed to, it is not waited for until it has."""
_LINE_PATIENCE_S = 1.0
"""The same in the middle of a line."""
_AT_ONCE = select.PIPE_BUF
"""Bytes that go into a pipe without waiting when it says that there is room."""


class JsonLinesSink:
    """One message a line, at once. A line that can't be written is lost, and the next one is tried again."""

    name = "jsonl"

    def __init__(self, path: str) -> None:
        """Append to the file `path`, made if need be; `-` is standard output. Raises `SinkError` if it can't be."""
        self._where = "standard output" if path == "-" else path
        self._patient = True
        self._mend = b""  # what must come first so that the next line is a line of its own
        try:
            if path == "-":
                self._fd = os.dup(sys.stdout.fileno())
            else:
                self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                size = os.fstat(self._fd).st_size
                if size and os.pread(self._fd, 1, size - 1) != b"\n":
                    self._mend = b"\n"
        except OSError as error:
            raise SinkError(f"can't write messages to {self._where}: {error.strerror}; choose another file") from None
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)

    def send(self, message: Message) -> None:
        """Write a line.

        Raises:
            SinkError: it is lost: the disk is full, or the reader of the pipe is gone or too slow.

        """
        line = self._mend + encode(message) + b"\n"
        written = 0
        wait_s = _PATIENCE_S if self._patient else 0.0
        try:
            while written < len(line):
                if not self._room.poll(wait_s * 1000):
                    raise SinkError(f"a message to {self._where} is lost: its reader is too slow")
                written += os.write(self._fd, line[written : written + _AT_ONCE])
                wait_s = _LINE_PATIENCE_S
        except OSError as error:
            raise SinkError(f"a message to {self._where} is lost: {error.strerror}") from None
        finally:
            self._patient = written == len(line)
            if written:
                self._mend = b"" if written in (len(self._mend), len(line)) else b"\n"

    def poll(self, timeout_s: float) -> None:
        """Wait: nobody asks a file for anything."""
        time.sleep(timeout_s)

    def close(self) -> None:
        """Close the file; every line is already in it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
