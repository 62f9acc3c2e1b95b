"""Sends the media of one source from its reading process to the daemon: a small header, then raw samples or pixels.

The reading process decodes untrusted media. So the daemon parses its reports into the types below and checks them; it
never unpickles them, because a pickle can run code.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np

from streamer.errors import SourceError
from streamer.media.level import Level
from streamer.media.pace import Arrival
from streamer.media.tracks import AudioInput
from streamer.types import PICTURE_SIDE, Anchor, Chunk, Discontinuity, MediaItem, Picture

_LENGTHS = struct.Struct("!II")  # bytes of the header, bytes of the data that follow
_MOST_BYTES = 64 * 2**20
_POLL_S = 0.1


class Measurements(msgspec.Struct, array_like=True, frozen=True):
    """What has been measured since the source was opened; see `Media`."""

    arrival: Arrival
    levels: list[Level]  # new since the last report
    corrupt_packets: int
    overlap_samples: int
    stray_pictures: int
    clock_fault: str
    cpu_s: float  # processor time since the last report


class Opened(msgspec.Struct, array_like=True, frozen=True, tag="opened"):
    """The source is open; see `Media`."""

    live: bool
    rewinds: bool
    has_audio: bool
    has_video: bool
    audio: AudioInput | None
    clock_fault: str


class Samples(msgspec.Struct, array_like=True, frozen=True, tag="samples"):
    """A `Chunk`; its samples follow as float32."""

    rate_hz: int
    start: int
    measurements: Measurements


class Pixels(msgspec.Struct, array_like=True, frozen=True, tag="pixels"):
    """A `Picture`; its pixels follow."""

    at: int
    measurements: Measurements


class Mark(msgspec.Struct, array_like=True, frozen=True, tag="mark"):
    """An `Anchor` or a `Discontinuity`."""

    anchor: Anchor | None
    discontinuity: Discontinuity | None
    measurements: Measurements


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A recording has ended, or, with a `reason`, a `SourceError` was raised."""

    reason: str
    message: str
    measurements: Measurements | None


Report: TypeAlias = Opened | Samples | Pixels | Mark | Ended
_decoder = msgspec.msgpack.Decoder(Report)


def send_item(connection: socket.socket, item: MediaItem, measurements: Measurements) -> None:
    """Send one item of media. Raises `OSError` if the daemon has closed the connection."""
    match item:
        case Chunk():
            send(connection, Samples(item.rate_hz, item.start, measurements), item.samples.astype(np.float32).tobytes())
        case Picture():
            send(connection, Pixels(item.at, measurements), item.pixels.tobytes())
        case Anchor():
            send(connection, Mark(item, None, measurements))
        case Discontinuity():
            send(connection, Mark(None, item, measurements))


def item_of(report: Samples | Pixels | Mark, data: bytes) -> MediaItem:
    """The item of media in a report. Raises `ValueError` if it is invalid."""
    match report:
        case Samples():
            return Chunk(report.rate_hz, report.start, np.frombuffer(data, np.float32))
        case Pixels():
            return Picture(report.at, np.frombuffer(data, np.uint8).reshape(PICTURE_SIDE, PICTURE_SIDE, 3))
        case Mark():
            item = report.anchor or report.discontinuity
            if item is None:
                raise ValueError("an empty mark")
            return item


def send(connection: socket.socket, report: Report, data: bytes = b"") -> None:
    """Send `report`, followed by `data`. Raises `OSError` if the daemon has closed the connection."""
    header = msgspec.msgpack.encode(report)
    connection.sendall(_LENGTHS.pack(len(header), len(data)) + header + data)


def receive(connection: socket.socket, interrupted: Callable[[], bool], until_s: float) -> tuple[Report, bytes]:
    """The next report and its data.

    Raises:
        TimeoutError: `interrupted` became true, or `until_s` (monotonic) passed first.
        EOFError: the reading process has closed the connection.
        ValueError: what was received is not a report.

    """
    lengths = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size, interrupted, until_s))
    if sum(lengths) > _MOST_BYTES:
        raise ValueError(f"a report of {sum(lengths)} bytes")
    report = _decoder.decode(_exactly(connection, lengths[0], interrupted, until_s))
    return report, _exactly(connection, lengths[1], interrupted, until_s)


def _exactly(connection: socket.socket, count: int, interrupted: Callable[[], bool], until_s: float) -> bytes:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        if interrupted() or time.monotonic() >= until_s:
            raise TimeoutError
        if select.select([connection], [], [], _POLL_S)[0]:
            try:
                more = connection.recv_into(view[got:])
            except ConnectionError:
                more = 0
            if not more:
                raise EOFError
            got += more
    return bytes(data)


def failure(error: SourceError, measurements: Measurements | None) -> Ended:
    """The report of a `SourceError`."""
    return Ended(error.reason, str(error), measurements)
