"""Reads each source in a separate process, which can be killed wherever it hangs."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import streamer
from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.level import Level
from streamer.media.liveness import carrier_of
from streamer.media.pace import Arrival
from streamer.media.source import Interrupt, MediaOptions
from streamer.media.tracks import AudioInput
from streamer.media.transfer import Ended, Measurements, Opened, Report, item_of, receive
from streamer.media.zygote import request
from streamer.runtime.sources import LevelSource
from streamer.types import MediaItem, Want

_FORK_S = 60.0
"""Longest time to fork. The first fork waits for PyAV to load, seconds on a busy machine; others take milliseconds."""
_OPEN_GRACE_S = 5.0
_FOREVER_S = float("inf")


class Processes:
    """The processes that read sources. `open` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to load the libraries that the processes need; returns at once."""
        with self._lock:
            self._start()

    def open(self, source: Address, want: Want, options: MediaOptions, *, interrupt: Interrupt) -> ForeignMedia:
        """Like `open_media`, in a new process. Raises `SourceError`, also if opening the source hangs."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._fork(theirs)
            except OSError as error:
                ours.close()
                raise SourceError("other", f"{source}: no process could be started to read it: {error}") from None
        media = ForeignMedia(self, pid, ours, source, options, interrupt)
        try:
            ours.sendall(request(source, want, options))
            media.wait_until_open()
        except OSError:
            media.close()
            raise media.died() from None
        except BaseException:
            media.close()
            raise
        return media

    def kill(self, pid: int) -> None:
        """Kill a process, whatever it is doing."""
        with self._lock, suppress(OSError):
            if self._control is not None:
                self._control.send(b"kill %d" % pid)

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            self._stop()

    def _fork(self, connection: socket.socket) -> int:
        """Fork a process that owns `connection`; returns its process id. Raises `OSError`."""
        with self._lock:
            for last in (False, True):
                self._start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"fork"], [connection.fileno()])
                    if not select.select([self._control], [], [], _FORK_S)[0]:
                        raise TimeoutError(f"no answer within {_FORK_S:.0f} s")
                    answer = self._control.recv(200).decode()
                    if answer.isdecimal():
                        return int(answer)
                    raise OSError(answer or "the process that forks the others has ended")
                except OSError:
                    self._stop()  # it may have been killed when memory ran out: try once more
                    if last:
                        raise
        raise AssertionError

    def _start(self) -> None:
        if self._control is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = str(Path(streamer.__file__).parents[1])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "streamer.media.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may carry messages
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self._control = ours

    def _stop(self) -> None:
        if self._control is None or self._zygote is None:
            return
        self._control.close()
        self._control = None
        try:
            self._zygote.wait(1.0)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()


class ForeignMedia:
    """A source that another process has open; used like `Media`. Every wait ends soon after `interrupt` is set."""

    def __init__(
        self,
        processes: Processes,
        pid: int,
        connection: socket.socket,
        address: Address,
        options: MediaOptions,
        interrupt: Interrupt,
    ) -> None:
        """Use `Processes.open`."""
        self._processes = processes
        self._pid = pid
        self._connection = connection
        self._address = address
        self._options = options
        self._interrupt = interrupt
        self._levels: list[Level] = []
        self.live = False
        self.rewinds = False
        self.has_audio = self.has_video = False
        self.audio: AudioInput | None = None
        self.arrival = Arrival()
        self.clock_fault = ""
        self.corrupt_packets = self.overlap_samples = self.stray_pictures = 0
        self.other_process_s = 0.0
        """Processor time that the other process spent on the newest item, in seconds."""

    @property
    def ear(self) -> LevelSource:
        """The source's input levels."""
        return self

    @property
    def has_levels(self) -> bool:
        """See `Ear`."""
        return bool(self._levels)

    def take_levels(self) -> list[Level]:
        """See `Ear`."""
        levels, self._levels = self._levels, []
        return levels

    def wait_until_open(self) -> None:
        """Raises `SourceError` if the source can't be opened, or is not open in time."""
        limit_s = 2 * self._options.open_timeout_s + _OPEN_GRACE_S  # FFmpeg may take twice its timeout
        waits = carrier_of(self._address, self._options.format) == "pipe"  # waits for its writer without a limit
        report, _ = self._next(_FOREVER_S if waits else time.monotonic() + limit_s)
        if not isinstance(report, Opened):
            raise self._failed(report)
        self.live, self.rewinds, self.clock_fault = report.live, report.rewinds, report.clock_fault
        self.has_audio, self.has_video, self.audio = report.has_audio, report.has_video, report.audio

    def __iter__(self) -> Iterator[MediaItem]:
        """The media of the source. Raises `SourceError`."""
        while True:
            report, data = self._next(_FOREVER_S)
            if isinstance(report, Ended) and not report.reason:
                self._note(report.measurements)
                return
            if isinstance(report, (Opened, Ended)):
                raise self._failed(report)
            self._note(report.measurements)
            try:
                item = item_of(report, data)
            except ValueError as error:
                raise self._invalid(error) from None
            yield item

    def close(self) -> None:
        """Kill the process and close the connection to it."""
        self._connection.close()
        self._processes.kill(self._pid)

    def died(self) -> SourceError:
        """The error for a process that ended unexpectedly."""
        return SourceError("other", f"{self._address}: its reading process was killed or crashed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, until_s: float) -> tuple[Report, bytes]:
        try:
            return receive(self._connection, self._interrupt.is_set, until_s)
        except TimeoutError:
            if self._interrupt.is_set():
                raise SourceError("timeout", f"{self._address}: reading was interrupted") from None
            raise SourceError(
                "timeout", f"{self._address}: opening it hung and was aborted: check the host name and the server"
            ) from None
        except EOFError:
            raise self.died() from None
        except ValueError as error:
            raise self._invalid(error) from None

    def _failed(self, report: Report) -> SourceError:
        if not isinstance(report, Ended):
            return self._invalid(ValueError(type(report).__name__))
        self._note(report.measurements)
        return SourceError(report.reason, report.message)

    def _invalid(self, error: Exception) -> SourceError:
        return SourceError("other", f"{self._address}: its reading process sent invalid data: {error}")

    def _note(self, measurements: Measurements | None) -> None:
        if measurements is None:
            return
        self.arrival, self.clock_fault = measurements.arrival, measurements.clock_fault
        self.other_process_s = measurements.cpu_s
        self._levels += measurements.levels
        self.corrupt_packets, self.overlap_samples = measurements.corrupt_packets, measurements.overlap_samples
        self.stray_pictures = measurements.stray_pictures
