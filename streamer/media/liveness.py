"""Decides, in this one place, whether a source is live: by what the open source does, never by its name."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Literal, TypeAlias

from streamer.address import Address

if TYPE_CHECKING:  # config reads this module, and must not wait for PyAV
    from av.container import InputContainer

Carrier: TypeAlias = Literal["file", "pipe", "device", "network"]
"""Where a source's bytes come from: a file on disk, a pipe (standard input, a FIFO), a capture device or a network."""

_STDIN = re.compile(r"-|pipe:0?")
_PIPE = re.compile(r"pipe:(\d+)")
_CAPTURE_FORMATS = {"alsa", "v4l2", "video4linux2", "pulse", "x11grab", "fbdev"}
_PUSHED_FORMATS = {"rtsp", "sdp", "rtp", "sap"}
"""Their packets are sent at the sender's pace, whether or not they are read."""
_PLAYLIST_FORMATS = {"hls", "dash"}
"""Their size is that of the playlist; their duration is known only once the playlist has ended."""
_LONGEST = 2**50
"""Bytes. A server that claims more invented the size of an endless stream."""


def descriptor_of(address: Address) -> int | None:
    """The number of the open file that `address` names (`-`, `pipe:3`, `/dev/stdin`); None if it names none."""
    url = address.path if address.is_local else ""
    if _STDIN.fullmatch(url) or url == "/dev/stdin":
        return 0
    match = _PIPE.fullmatch(url) or re.fullmatch(r"/dev/fd/(\d+)", url)
    return int(match[1]) if match else None


def carrier_of(address: Address, format_name: str | None) -> Carrier:
    """Where the bytes of `address` come from, determined before it is opened."""
    if format_name in _CAPTURE_FORMATS:
        return "device"
    if not address.is_local:
        return "network"
    descriptor = descriptor_of(address)
    try:
        mode = os.stat(address.path if descriptor is None else descriptor).st_mode
    except (OSError, ValueError):
        if descriptor is not None:
            return "pipe"
        return "device" if address.path.startswith("/dev/") else "file"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (descriptor is not None and not stat.S_ISREG(mode)):
        return "pipe"
    return "device" if stat.S_ISCHR(mode) else "file"


def comes_back(carrier: Carrier) -> bool:
    """Whether a source that could not be opened may appear later: a camera may, a file won't."""
    return carrier in ("network", "device")


def is_live(container: InputContainer, carrier: Carrier) -> bool:
    """Whether an open source runs at its own pace, without an end of its own.

    A live source that ends was lost, and is reconnected; a recording can wait, and its end is final.
    """
    name = container.format.name
    if carrier == "device" or name in _PUSHED_FORMATS:
        return True
    if name in _PLAYLIST_FORMATS:
        return not container.duration
    if carrier in ("file", "pipe") or 0 < container.size < _LONGEST:
        return False
    # FFmpeg takes the received part of a fragmented MP4 for the whole; such a file states no number of frames.
    fragments = "mp4" in name.split(",") and not any(stream.frames for stream in container.streams)
    return fragments or not container.duration
