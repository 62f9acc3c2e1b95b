"""Opens a stream, file or device with PyAV, or explains in one line why it can't be opened."""

from __future__ import annotations

import ctypes
import logging
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
from streamer.media.trust import tls_options, tls_problem

log = logging.getLogger(__name__)

_UNVERIFIED_FORMATS = {"hls", "dash"}
"""FFmpeg does not apply TLS options to the segments of a playlist (libavformat/hls.c, save_avio_options)."""
_ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
# How much media FFmpeg may analyse while it opens a source, in microseconds. RTSP describes its tracks in the SDP; RTMP
# and MPEG-TS must be probed, which takes this long if there is no video.
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
    verify: bool = True  # the server's TLS certificate
    ca_file: Path | None = None  # trusted CA certificates; None: this machine's
    format: str | None = None  # FFmpeg's name, needed for devices: "alsa" or "v4l2"; None: guess
    # Further FFmpeg options; they override ours. Their values may be secrets, as in `headers` and `cookies`.
    ffmpeg: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OpenContainer:
    """An open source and how it was opened."""

    container: InputContainer
    carrier: Carrier
    live: bool
    took_s: float  # to open it
    pipe: Pipe | None  # what `container` reads from, if we must close it

    def close(self) -> None:
        """Release the source; no thread may be reading from it."""
        self.container.close()
        if self.pipe is not None:
            self.pipe.close()


def open_container(address: Address, options: MediaOptions, interrupt: Interrupt) -> OpenContainer:
    """Open `address` and find its tracks. Raises `SourceError`."""
    _prepare()
    check_address(address)
    if options.format == "alsa" and Path(_ALSA_CONFIG).exists():
        # PyAV's wheel looks for ALSA's configuration at a path of the machine that built it.
        os.environ.setdefault("ALSA_CONFIG_PATH", _ALSA_CONFIG)
    _check_options(address, options.ffmpeg)
    return _open(address, options, interrupt)


_prepared = threading.Lock()


def _prepare() -> None:
    """Set up PyAV on the first opening, because importing a module must change nothing."""
    with _prepared:
        # FFmpeg logging into Python can deadlock with other threads.
        av.logging.set_level(None)
        interrupts.install()


def _open(address: Address, options: MediaOptions, interrupt: Interrupt) -> OpenContainer:
    """The open container. All exceptions become `SourceError`s without the original's text."""
    carrier = carrier_of(address, options.format)
    descriptor = descriptor_of(address)
    failure = _file_problem(address) if carrier == "file" and descriptor is None else None
    if failure is not None:
        raise failure
    ffmpeg_options = _ffmpeg_options(address, carrier, options)
    pipe = Pipe(descriptor, address, interrupt) if carrier == "pipe" else None
    # FFmpeg reads a pipe through `Pipe.read`, which has no time limit: a writer may come at any time.
    timeout = None if pipe else (options.open_timeout_s, options.read_timeout_s + MAX_PATIENCE_S)
    started = time.monotonic()
    try:
        with interruptible(interrupt):
            container = av.open(
                pipe or _ffmpeg_name(address, carrier, descriptor),
                "r",
                format=options.format,
                container_options=ffmpeg_options,
                timeout=timeout,
            )
    except Exception as error:
        timed_out = time.monotonic() - started >= options.open_timeout_s
        failure = opening_failed(error, address, carrier, timed_out=timed_out, timeout_s=options.open_timeout_s)
        left_s = options.open_timeout_s - (time.monotonic() - started)
        if failure.reason == "tls" and left_s > 0 and not interrupt.is_set():
            failure = tls_problem(address, ffmpeg_options, left_s) or failure
        if interrupt.is_set():
            failure = SourceError("timeout", f"{address}: opening was interrupted")
    if failure is not None:
        if pipe is not None:
            pipe.close()
        # Raised outside `except`: the error must not carry FFmpeg's, whose text holds the password.
        raise failure
    opened = OpenContainer(container, carrier, is_live(container, carrier), time.monotonic() - started, pipe)
    if address.scheme == "https" and options.verify and container.format.name in _UNVERIFIED_FORMATS:
        log.warning(
            "%s: FFmpeg verifies the certificate of the playlist's server, but not of its segments' servers", address
        )
    if container.format.name == "tty" and options.format != "tty":
        # FFmpeg takes .txt files for videos of terminal art.
        opened.close()
        raise not_media(address, carrier, "a text file")
    return opened


def _ffmpeg_name(address: Address, carrier: Carrier, descriptor: int | None) -> str:
    if descriptor is not None:  # so that a file on standard input is seekable, unlike FFmpeg's `pipe:`
        return f"file:/dev/fd/{descriptor}"
    # "file:" keeps FFmpeg from interpreting a colon or a % in a file's name.
    return f"file:{address.path}" if carrier == "file" else address.reveal()


def _ffmpeg_options(address: Address, carrier: Carrier, options: MediaOptions) -> dict[str, str]:
    scheme = address.scheme
    ours: dict[str, str] = {}
    if carrier == "network":
        ours["analyzeduration"] = _ANALYZE_US.get(scheme, _ANALYZE_NETWORK_US)
    if scheme in ("rtsp", "rtsps"):
        ours["rtsp_transport"] = options.transport
    ours.update(tls_options(address, verify=options.verify, ca_file=options.ca_file))
    return {**ours, **options.ffmpeg}


def _check_options(address: Address, names: Mapping[str, str]) -> None:
    """Refuse options that libavformat does not know, because it silently ignores them. Raises `SourceError`."""
    if not names:
        return
    try:
        library = ctypes.CDLL(av.container.core.__file__)
        library.avformat_get_class.restype = ctypes.c_void_p
        find = library.av_opt_find
    except (OSError, AttributeError):  # a PyAV that is linked differently: skip the check
        return
    find.restype = ctypes.c_void_p
    find.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    root = ctypes.c_void_p(library.avformat_get_class())
    everywhere = 0x3  # AV_OPT_SEARCH_CHILDREN | AV_OPT_SEARCH_FAKE_OBJ
    unknown = [n for n in names if find(ctypes.byref(root), n.encode(), None, 0, everywhere) is None]
    if unknown:
        raise SourceError(
            "protocol", f"{address}: FFmpeg has no option {', '.join(map(repr, unknown))}: check the name"
        )


def _file_problem(path: Address) -> SourceError | None:
    """Problems of a local file that can be found without FFmpeg."""
    try:
        status = os.stat(path.path)
    except FileNotFoundError:
        doubt = f"; {path.doubt}" if path.doubt else ""
        return SourceError("not_found", f"{path}: no such file: check the path{doubt}")
    except (OSError, ValueError):
        return SourceError("not_found", f"{path}: can't be accessed: check the path")
    if stat.S_ISDIR(status.st_mode):
        return SourceError("invalid_data", f"{path}: a folder, not a media file: name a file in it")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return SourceError("empty", f"{path}: the file is empty: copy or record it again")
    return None
