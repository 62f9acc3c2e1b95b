"""How the media of one source passes from the process that reads it to the daemon: small headers, then raw samples.

The reading process decodes what strangers send. So what comes from it is parsed into the types below and checked; none
of it is executed, as a pickle would be.
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

_LENGTHS = struct.Struct("!II")  # of the header and of what follows it
_MOST_BYTES = 64 * 2**20
_LOOK_S = 0.1


class Beside(msgspec.Struct, array_like=True, frozen=True):
    """What is known beside the media so far; see `Media`."""

    arrival: Arrival
    levels: list[Level]  # new ones
    corrupt_packets: int
    overlap_samples: int
    stray_pictures: int
    clock_fault: str
    cpu_s: float  # processor time since the last item


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
    beside: Beside


class Pixels(msgspec.Struct, array_like=True, frozen=True, tag="pixels"):
    """A `Picture`; its pixels follow."""

    at: int
    beside: Beside


class Mark(msgspec.Struct, array_like=True, frozen=True, tag="mark"):
    """An `Anchor` or a `Discontinuity`."""

    anchor: Anchor | None
    discontinuity: Discontinuity | None
    beside: Beside


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A recording has ended, or (with a reason) there was a `SourceError`."""

    reason: str
    message: str
    beside: Beside | None


Said: TypeAlias = Opened | Samples | Pixels | Mark | Ended
_decoder = msgspec.msgpack.Decoder(Said)


def send_item(connection: socket.socket, item: MediaItem, beside: Beside) -> None:
    """Send one item of media. Raises `OSError` if nobody receives it."""
    match item:
        case Chunk():
            send(connection, Samples(item.rate_hz, item.start, beside), item.samples.astype(np.float32).tobytes())
        case Picture():
            send(connection, Pixels(item.at, beside), item.pixels.tobytes())
        case Anchor():
            send(connection, Mark(item, None, beside))
        case Discontinuity():
            send(connection, Mark(None, item, beside))


def item_of(said: Samples | Pixels | Mark, data: bytes) -> MediaItem:
    """The media that was sent. Raises `ValueError` if it is none."""
    match said:
        case Samples():
            return Chunk(said.rate_hz, said.start, np.frombuffer(data, np.float32))
        case Pixels():
            return Picture(said.at, np.frombuffer(data, np.uint8).reshape(PICTURE_SIDE, PICTURE_SIDE, 3))
        case Mark():
            item = said.anchor or said.discontinuity
            if item is None:
                raise ValueError("a mark without anything")
            return item


def send(connection: socket.socket, said: Said, data: bytes = b"") -> None:
    """Send `said`, and `data` behind it. Raises `OSError` if nobody receives it."""
    header = msgspec.msgpack.encode(said)
    connection.sendall(_LENGTHS.pack(len(header), len(data)) + header + data)


def receive(connection: socket.socket, ended: Callable[[], bool], until_s: float) -> tuple[Said, bytes]:
    """The next that was sent, and its data.

    Raises:
        TimeoutError: `ended` became true, or nothing was sent until `until_s` (monotonic).
        EOFError: the other side is gone.
        ValueError: it sent something that it never sends.

    """
    lengths = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size, ended, until_s))
    if sum(lengths) > _MOST_BYTES:
        raise ValueError(f"{sum(lengths)} bytes at once")
    said = _decoder.decode(_exactly(connection, lengths[0], ended, until_s))
    return said, _exactly(connection, lengths[1], ended, until_s)


def _exactly(connection: socket.socket, count: int, ended: Callable[[], bool], until_s: float) -> bytes:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        if ended() or time.monotonic() >= until_s:
            raise TimeoutError
        if select.select([connection], [], [], _LOOK_S)[0]:
            try:
                more = connection.recv_into(view[got:])
            except ConnectionError:
                more = 0
            if not more:
                raise EOFError
            got += more
    return bytes(data)


def failure(error: SourceError, beside: Beside | None) -> Ended:
    """How a `SourceError` is sent."""
    return Ended(error.reason, str(error), beside)
