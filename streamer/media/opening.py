"""Opens a stream, a file or a device with PyAV, and says in one line why it can't."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import av.container.core
from av.container import InputContainer

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media import interrupt as interrupts
from streamer.media.faults import check_address, not_media, opening_failed
from streamer.media.interrupt import Interrupt, interruptible
from streamer.media.liveness import Carrier, carrier_of, descriptor_of, is_live
from streamer.media.pace import MAX_PATIENCE_S
from streamer.media.pipe import Pipe
from streamer.media.tracks import Channel

_ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
# How much FFmpeg may look at before a source counts as open, in microseconds. What RTSP carries is in its SDP; RTMP and
# MPEG-TS must be listened to, and a stream without picture is waited for that long.
_ANALYZE_US = {"rtsp": "500000", "rtsps": "500000"}
_ANALYZE_NETWORK_US = "2000000"


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """How to open a source."""

    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    hole_limit_s: float = 2.0  # a longer hole ends the epoch
    audio_track: int | str | None = None  # a number from 1, or a language; None: FFmpeg's choice
    channel: Channel = "mix"
    format: str | None = None  # FFmpeg's name, needed for devices: "alsa" or "v4l2"; None: guess
    # Further FFmpeg options; they win over ours. Their values may be secrets: `headers` and `cookies` are.
    ffmpeg: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OpenContainer:
    """An open source, and what is known of it from the outside."""

    container: InputContainer
    carrier: Carrier
    live: bool
    took_s: float  # to open it
    pipe: Pipe | None  # what `container` reads from, where that is ours to close

    def close(self) -> None:
        """Free it; no thread may be reading from it."""
        self.container.close()
        if self.pipe is not None:
            self.pipe.close()


def open_container(address: Address, options: MediaOptions, interrupt: Interrupt) -> OpenContainer:
    """Open `address` and look what is in it. Raises `SourceError`."""
    _prepare()
    check_address(address)
    if options.format == "alsa" and Path(_ALSA_CONFIG).exists():
        # PyAV's wheel looks for ALSA's configuration where it was built.
        os.environ.setdefault("ALSA_CONFIG_PATH", _ALSA_CONFIG)
    _check_options(address, options.ffmpeg)
    return _open(address, options, interrupt)


_prepared = threading.Lock()


def _prepare() -> None:
    """Set PyAV up in this process, at the first opening: importing a module must change nothing."""
    with _prepared:
        # FFmpeg logging into Python can deadlock with other threads.
        av.logging.set_level(None)
        interrupts.install()


def _open(address: Address, options: MediaOptions, interrupt: Interrupt) -> OpenContainer:
    """The open container; all exceptions become `SourceError`s that know nothing of the original's text."""
    carrier = carrier_of(address, options.format)
    descriptor = descriptor_of(address)
    failure = _file_problem(address) if carrier == "file" and descriptor is None else None
    if failure is not None:
        raise failure
    pipe = Pipe(descriptor, address, interrupt) if carrier == "pipe" else None
    # FFmpeg waits for a pipe in `Pipe.read`, which has no time limit: a writer may come when it likes.
    timeout = None if pipe else (options.open_timeout_s, options.read_timeout_s + MAX_PATIENCE_S)
    started = time.monotonic()
    try:
        with interruptible(interrupt):
            container = av.open(
                pipe or _ffmpeg_name(address, carrier, descriptor),
                "r",
                format=options.format,
                container_options=_ffmpeg_options(address, carrier, options),
                timeout=timeout,
            )
    except Exception as error:
        timed_out = time.monotonic() - started >= options.open_timeout_s
        failure = opening_failed(error, address, carrier, timed_out=timed_out, timeout_s=options.open_timeout_s)
        if interrupt.is_set():
            failure = SourceError("timeout", f"{address}: the opening was interrupted")
    if failure is not None:
        if pipe is not None:
            pipe.close()
        # Outside of `except`: the error must not carry FFmpeg's, whose text holds the password.
        raise failure
    opened = OpenContainer(container, carrier, is_live(container, carrier), time.monotonic() - started, pipe)
    if container.format.name == "tty" and options.format != "tty":
        # FFmpeg takes .txt files for films of terminal art.
        opened.close()
        raise not_media(address, carrier, "a text file")
    return opened


def _ffmpeg_name(address: Address, carrier: Carrier, descriptor: int | None) -> str:
    if descriptor is not None:  # a file on standard input can be sought in, which FFmpeg's own `pipe:` can't
        return f"file:/dev/fd/{descriptor}"
    # "file:" keeps FFmpeg from taking a colon or a % in a file's name for syntax of its own.
    return f"file:{address.path}" if carrier == "file" else address.reveal()


def _ffmpeg_options(address: Address, carrier: Carrier, options: MediaOptions) -> dict[str, str]:
    scheme = address.scheme
    ours: dict[str, str] = {}
    if carrier == "network":
        ours["analyzeduration"] = _ANALYZE_US.get(scheme, _ANALYZE_NETWORK_US)
    if scheme in ("rtsp", "rtsps"):
        ours["rtsp_transport"] = options.transport
    return {**ours, **options.ffmpeg}


def _check_options(address: Address, names: Mapping[str, str]) -> None:
    """Refuse options that nothing in FFmpeg's libavformat knows: it ignores them in silence, and PyAV doesn't tell."""
    if not names:
        return
    try:
        library = ctypes.CDLL(av.container.core.__file__)
        library.avformat_get_class.restype = ctypes.c_void_p
        find = library.av_opt_find
    except (OSError, AttributeError):  # a PyAV that is linked in another way: go without the check
        return
    find.restype = ctypes.c_void_p
    find.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    root = ctypes.c_void_p(library.avformat_get_class())
    everywhere = 0x3  # AV_OPT_SEARCH_CHILDREN | AV_OPT_SEARCH_FAKE_OBJ
    unknown = [n for n in names if find(ctypes.byref(root), n.encode(), None, 0, everywhere) is None]
    if unknown:
        raise SourceError(
            "protocol", f"{address}: FFmpeg knows no option {', '.join(map(repr, unknown))}: mend the name"
        )


def _file_problem(path: Address) -> SourceError | None:
    """What can be said of a local file without FFmpeg."""
    try:
        status = os.stat(path.path)
    except FileNotFoundError:
        doubt = f"; {path.doubt}" if path.doubt else ""
        return SourceError("not_found", f"{path}: no such file: check the path{doubt}")
    except (OSError, ValueError):
        return SourceError("not_found", f"{path}: can't be looked at: check the path")
    if stat.S_ISDIR(status.st_mode):
        return SourceError("invalid_data", f"{path}: a folder, not a media file: name a file in it")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return SourceError("empty", f"{path}: the file is empty: copy or record it again")
    return None
