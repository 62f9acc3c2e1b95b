"""Reads and decodes an open container packet by packet; handles time limits, interruptions and damage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.faults import reading_failed
from streamer.media.interrupt import Interrupt, interruptible
from streamer.media.opening import OpenContainer
from streamer.media.pace import Arrival, Pace

Frame: TypeAlias = av.AudioFrame | av.VideoFrame

_LONGEST_PACKET_S = 1.0
_BAD_READS = 100  # in a row: then the rest of a file can't be read


class Packets:
    """The packets of the wanted tracks with their decoded frames. Iterate once, in one thread; any may `close`."""

    def __init__(
        self,
        opened: OpenContainer,
        address: Address,
        tracks: tuple[AudioStream | VideoStream, ...],
        read_timeout_s: float,
        interrupt: Interrupt,
    ) -> None:
        """`tracks` are the wanted ones; the pace of a live source is measured on the first."""
        self.corrupt = 0
        """Packets that the source marked as damaged or that could not be decoded; they were skipped."""
        self._opened = opened
        self._address = address
        self._tracks = tracks
        self._read_timeout_s = read_timeout_s
        self._interrupt = interrupt
        self._busy = threading.Lock()
        self._closed = False
        self._pace = Pace(opened.took_s)
        self._pts: int | None = None  # of the latest packet of the first track

    @property
    def arrival(self) -> Arrival:
        """How the latest media of a live source arrived: in time or in a burst."""
        return self._pace.arrival(time.monotonic())

    def close(self) -> None:
        """Interrupt reading and release the source. May be called from any thread, and repeatedly."""
        self._interrupt.set()
        # FFmpeg crashes if a container is closed under a thread that reads from it.
        if self._busy.acquire(timeout=5.0):
            try:
                if not self._closed:
                    self._closed = True
                    self._opened.close()
            finally:
                self._busy.release()

    def __iter__(self) -> Iterator[tuple[Packet[Stream], list[Frame]]]:
        """Yield each packet with its frames. Raises `SourceError` unless the source ends cleanly."""
        packets, bad_reads = self._demux(), 0
        while True:
            problem: Exception | None = None
            packet: Packet[Stream] | None = None
            frames: list[Frame] = []
            began_s = ended_s = time.monotonic()
            limit_s = self._read_timeout_s + self.arrival.patience_s
            with self._busy, interruptible(self._interrupt, began_s + limit_s):
                if not self._interrupt.is_set():
                    try:
                        packet = next(packets, None)
                    except IndexError:
                        pass  # PyAV raises it at the end of a source that gained a track
                    except Exception as error:
                        problem = error
                    ended_s = time.monotonic()
                    if packet is not None:
                        self._came(packet, ended_s, ended_s - began_s)
                        frames = self._decode(packet)
            # Errors are raised out here, not in `except`: they must not carry FFmpeg's, whose text holds the password.
            if self._interrupt.is_set():
                raise SourceError("timeout", f"{self._address}: reading was interrupted")
            if isinstance(problem, av.error.InvalidDataError) and not self._opened.live and bad_reads < _BAD_READS:
                # PyAV's generator ends with an exception; a new one continues after the damage.
                packets = self._demux()
                bad_reads += 1
                self.corrupt += 1
            elif problem is not None:
                raise reading_failed(
                    problem,
                    self._address,
                    self._opened.carrier,
                    live=self._opened.live,
                    timed_out=ended_s - began_s >= limit_s,
                    timeout_s=limit_s,
                )
            elif packet is None:
                return
            else:
                bad_reads = 0
                yield packet, frames

    def _demux(self) -> Iterator[Packet[Stream]]:
        return self._opened.container.demux(self._tracks)

    def _came(self, packet: Packet[Stream], now_s: float, waited_s: float) -> None:
        """Record the arrival of a live source's packet by its duration, as its timestamps may be wrong."""
        if not self._opened.live or packet.stream is not self._tracks[0]:
            return
        base = packet.time_base or Fraction(0)
        length_s = float((packet.duration or 0) * base)
        if not length_s and packet.pts is not None and self._pts is not None:
            length_s = min(max(float((packet.pts - self._pts) * base), 0.0), _LONGEST_PACKET_S)
        self._pts = packet.pts if packet.pts is not None else self._pts
        self._pace.push(now_s, waited_s, length_s)

    def _decode(self, packet: Packet[Stream]) -> list[Frame]:
        if packet.is_corrupt:
            self.corrupt += 1
        try:
            frames = packet.decode()
        except EOFError:  # an already flushed decoder, at the end of a damaged file
            return []
        except (av.FFmpegError, ValueError):
            if not packet.is_corrupt:
                self.corrupt += 1
            return []
        return [frame for frame in frames if isinstance(frame, Frame)]
