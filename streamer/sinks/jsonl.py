"""Messages as lines of JSON, appended to a file or written to standard output."""

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
"""How long a pipe's reader may take to make room. Once it failed to, it is not waited for until it has."""
_LINE_PATIENCE_S = 1.0
"""The same in the middle of a line."""
_AT_ONCE = select.PIPE_BUF
"""Bytes that go into a pipe without waiting when it says that there is room."""


class JsonLinesSink:
    """One message a line, at once. A line that can't be written is lost, and the next one is tried again.

    A file follows its path: when what is there is another file, or none, as after logrotate or in a folder that was
    made anew, the file is opened again. A FIFO that nobody reads loses messages until somebody does.
    """

    name = "jsonl"

    def __init__(self, path: str) -> None:
        """Append to the file `path`, made if need be; `-` is standard output. Raises `SinkError` if it can't be."""
        self._path = None if path == "-" else path
        self._where = path if self._path else "standard output"
        self._patient = True
        self._mend = b""  # what must come first so that the next line is a line of its own
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
            if error.errno != errno.ENXIO:  # a FIFO's reader may come later
                raise SinkError(
                    f"can't write messages to {self._where}: {error.strerror}; choose another file"
                ) from None

    def send(self, message: Message) -> None:
        """Write a line.

        Raises:
            SinkError: it is lost: the disk is full, the file can't be opened again where it was moved away, or the
                reader of the pipe is gone or too slow.
            SinkGoneError: it is lost and so is all that follows: whoever read standard output has gone.

        """
        try:
            self._follow()
            self._write(self._mend + encode(message) + b"\n")
        except OSError as error:
            raise self._lost(error) from None

    def poll(self, timeout_s: float) -> None:
        """Wait: nobody asks a file for anything. Raises `SinkGoneError` if whoever read standard output has gone."""
        if self._path is None and self._fd >= 0:
            for _, event in self._room.poll(0):
                if event & (select.POLLERR | select.POLLHUP):
                    raise self._lost(OSError(errno.EPIPE, ""))
        time.sleep(timeout_s)

    def reopen(self) -> None:
        """Close the file and open it anew at its path; standard output stays. Raises `SinkError`."""
        if self._path is not None:
            self.close()
            try:
                self._open(self._path)
            except OSError as error:
                raise self._lost(error) from None

    def close(self) -> None:
        """Close the file; every line is already in it."""
        if self._fd >= 0:
            self._room.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _follow(self) -> None:
        """Open the path if nothing is open, or something else is there than what is open. Raises `OSError`."""
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
                    self._mend = b""  # it was emptied
                return
            self.close()
            log.info("%s was moved or removed; it is opened again", self._where)
        self._open(self._path)

    def _open(self, path: str) -> None:
        """Open `path` to append to it. Raises `OSError`."""
        try:
            is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
        except FileNotFoundError:
            is_fifo = False
        # A FIFO opened for reading too would take messages though nobody reads them. Of a file the end is read.
        flags = os.O_WRONLY if is_fifo else os.O_RDWR | os.O_CREAT
        self._hold(os.open(path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o644))
        now = os.fstat(self._fd)
        torn = stat.S_ISREG(now.st_mode) and now.st_size and os.pread(self._fd, 1, now.st_size - 1) != b"\n"
        self._mend = b"\n" if torn else b""

    def _hold(self, fd: int) -> None:
        self._fd = fd
        self._room.register(fd, select.POLLOUT)

    def _write(self, line: bytes) -> None:
        """Write all of it, or raise `SinkError` or `OSError`; half a line is mended by the next."""
        written = 0
        wait_s = _PATIENCE_S if self._patient else 0.0
        try:
            while written < len(line):
                if not self._room.poll(wait_s * 1000):
                    raise SinkError(f"a message to {self._where} is lost: its reader is too slow")
                written += os.write(self._fd, line[written : written + _AT_ONCE])
                wait_s = _LINE_PATIENCE_S
        finally:
            self._patient = written == len(line)
            if written:
                self._mend = b"" if written in (len(self._mend), len(line)) else b"\n"

    def _lost(self, error: OSError) -> SinkError:
        if self._path is None and self._is_gone(error):
            self.close()
            return SinkGoneError(f"whoever read {self._where} has gone; it gets no more messages")
        if error.errno in (errno.EPIPE, errno.ENXIO):
            self.close()  # a FIFO: it can be opened again when it has a reader
            return SinkError(f"a message to {self._where} is lost: nobody reads it")
        return SinkError(f"a message to {self._where} is lost: {error.strerror}")

    def _is_gone(self, error: OSError) -> bool:
        """Of standard output: the pipe's reader has gone, the connection is cut, the terminal has been closed."""
        hung_up = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self._fd).st_mode)
        return hung_up or error.errno in (errno.EPIPE, errno.ECONNRESET)
