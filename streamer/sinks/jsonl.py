"""Messages as JSON lines, appended to a file or written to standard output."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import sys
import time

from streamer.errors import SinkError, SinkGoneError
from streamer.sinks.wire import Message, encode

log = logging.getLogger(__name__)

_PATIENCE_S = 0.2
"""How long to wait for a pipe's reader to make room. After a timeout, no more waiting until it has made room."""
_LINE_PATIENCE_S = 1.0
"""The same, for the rest of a line that is partly written."""
_AT_ONCE = select.PIPE_BUF
"""Bytes that a pipe takes without blocking once poll says that it is writable."""


class JsonLinesSink:
    """Writes each message as a line, unbuffered. A line that can't be written is lost; the next is tried as usual.

    The sink follows its path: if the file there was replaced or removed, as by logrotate, it is reopened. A FIFO
    loses messages while nobody reads it.
    """

    name = "jsonl"

    def __init__(self, path: str) -> None:
        """Append to the file `path`, created if missing; `-` is standard output. Raises `SinkError` if that fails."""
        self._path = None if path == "-" else path
        self._where = path if self._path else "standard output"
        self._patient = True
        self._mend = b""  # written before the next line, to end one that was cut short
        self._fd = -1
        self._room = select.poll()
        try:
            if self._path is not None:
                self._open(self._path)
            elif sys.stdout is None:  # Python found it closed
                raise OSError(errno.EBADF, "it is closed")
            else:
                self._hold(os.dup(sys.stdout.fileno()))
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: a FIFO without a reader yet
                raise SinkError(
                    f"can't write messages to {self._where}: {error.strerror}; choose another file"
                ) from None

    def send(self, message: Message) -> None:
        """Write a line.

        Raises:
            SinkError: the line is lost: the disk is full, the file was moved and can't be reopened, or the pipe's
                reader is gone or too slow.
            SinkGoneError: this and all later lines are lost: the reader of standard output is gone.

        """
        try:
            self._follow()
            self._write(self._mend + encode(message) + b"\n")
        except OSError as error:
            raise self._lost(error) from None

    def poll(self, timeout_s: float) -> None:
        """Only wait, as there are no requests. Raises `SinkGoneError` if the reader of standard output is gone."""
        if self._path is None and self._fd >= 0:
            for _, event in self._room.poll(0):
                if event & (select.POLLERR | select.POLLHUP):
                    raise self._lost(OSError(errno.EPIPE, ""))
        time.sleep(timeout_s)

    def reopen(self) -> None:
        """Close the file and open its path again; standard output stays open. Raises `SinkError`."""
        if self._path is not None:
            self.close()
            try:
                self._open(self._path)
            except OSError as error:
                raise self._lost(error) from None

    def close(self) -> None:
        """Close the file; every line has already been written."""
        if self._fd >= 0:
            self._room.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _follow(self) -> None:
        """Open the path if nothing is open or the path now leads to another file. Raises `OSError`."""
        if self._path is None:
            return
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            try:
                there = os.stat(self._path)
            except OSError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                if stat.S_ISREG(ours.st_mode) and not ours.st_size:
                    self._mend = b""  # it was truncated
                return
            self.close()
            log.info("%s was moved or removed; reopening it", self._where)
        self._open(self._path)

    def _open(self, path: str) -> None:
        """Open `path` to append to it. Raises `OSError`."""
        try:
            is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
        except FileNotFoundError:
            is_fifo = False
        # A file is opened for reading too, to look at its last byte. A FIFO opened so would count as its own reader.
        flags = os.O_WRONLY if is_fifo else os.O_RDWR | os.O_CREAT
        self._hold(os.open(path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o644))
        now = os.fstat(self._fd)
        torn = stat.S_ISREG(now.st_mode) and now.st_size and os.pread(self._fd, 1, now.st_size - 1) != b"\n"
        self._mend = b"\n" if torn else b""

    def _hold(self, fd: int) -> None:
        self._fd = fd
        self._room.register(fd, select.POLLOUT)

    def _write(self, line: bytes) -> None:
        """Write all of `line`. Raises `SinkError` or `OSError`; the next call then ends a half-written line first."""
        written = 0
        wait_s = _PATIENCE_S if self._patient else 0.0
        try:
            while written < len(line):
                if not self._room.poll(wait_s * 1000):
                    raise SinkError(f"message to {self._where} lost: its reader is too slow")
                written += os.write(self._fd, line[written : written + _AT_ONCE])
                wait_s = _LINE_PATIENCE_S
        finally:
            self._patient = written == len(line)
            if written:
                self._mend = b"" if written in (len(self._mend), len(line)) else b"\n"

    def _lost(self, error: OSError) -> SinkError:
        if self._path is None and self._is_gone(error):
            self.close()
            return SinkGoneError(f"the reader of {self._where} is gone; it gets no more messages")
        if error.errno in (errno.EPIPE, errno.ENXIO):
            self.close()  # a FIFO: to be reopened once it has a reader
            return SinkError(f"message to {self._where} lost: nobody is reading it")
        return SinkError(f"message to {self._where} lost: {error.strerror}")

    def _is_gone(self, error: OSError) -> bool:
        """Whether standard output is gone for good: pipe without a reader, closed connection or closed terminal."""
        hung_up = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self._fd).st_mode)
        return hung_up or error.errno in (errno.EPIPE, errno.ECONNRESET)
