"""Opens a live stream, a file or a device with PyAV and gives out audio, pictures, anchors and discontinuities.

No threads and no state outside a `Media`; one thread reads it, any thread may `interrupt` it. The rest of the program
knows media by `streamer.types` alone: `av` is imported here and in the `media_*` files beside it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import av
import av.container.core
from av.stream import Discard, Disposition

from streamer.errors import SourceError
from streamer.media import interrupt as interrupts
from streamer.media.audio import mono
from streamer.media.epoch import EpochBuilder
from streamer.media.faults import check_url, opening_failed, reading_failed, scheme_of, shown
from streamer.media.interrupt import Interrupt, interruptible
from streamer.media.pictures import Scaler
from streamer.types import MediaItem, Want

__all__ = ["Interrupt", "Media", "MediaOptions", "Want", "is_live", "open_media"]

_DEVICE_FORMATS = {"alsa", "v4l2", "video4linux2", "pulse", "x11grab", "fbdev", "lavfi"}
_FILE_SUFFIXES = {".mp4", ".m4a", ".mov", ".mkv", ".webm", ".wav", ".flac", ".mp3", ".ogg", ".opus", ".avi", ".aac"}
_ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
# How much FFmpeg may look at before a source counts as open, in microseconds. What RTSP carries is in its SDP; RTMP and
# MPEG-TS must be listened to, and a stream without picture is waited for that long.
_ANALYZE_US = {"rtsp": "500000", "rtsps": "500000"}
_ANALYZE_LIVE_US = "2000000"
_BAD_READS = 100  # in a row: then the rest of a file can't be read
_UNDECODABLE_TIMEOUTS = 3  # read timeouts of packets without a single decoded frame: then the source is useless


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """How to open a source."""

    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    hole_limit_s: float = 2.0  # a longer hole ends the epoch
    format: str | None = None  # FFmpeg's name, needed for devices: "alsa" or "v4l2"; None: guess
    ffmpeg: Mapping[str, str] = field(default_factory=dict)  # further FFmpeg options; they win over ours


def is_live(url: str, format: str | None = None) -> bool:
    """Whether what `url` gives is lost if nobody takes it: streams and devices, not files.

    A guess before opening; HTTP is live unless the path looks like a media file. `Media.live` knows it for certain.
    """
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        return Path(url.partition("?")[0]).suffix.lower() not in _FILE_SUFFIXES
    if scheme:
        return scheme != "file"
    return format in _DEVICE_FORMATS or url.startswith("/dev/")


def open_media(
    url: str,
    want: Want,
    options: MediaOptions | None = None,
    *,
    now: Callable[[], float] = time.time,
    interrupt: Interrupt | None = None,
) -> Media:
    """Open `url` (a URL, a path or, with `options.format`, a device) for what `want` asks.

    `now` gives Unix seconds for the arrival clock. `interrupt` lets another thread end the opening too.
    Raises `SourceError`, also if nothing that is wanted can be decoded; a missing audio or video track beside
    the other one is no error: see `Media.has_audio`, `Media.has_video`.
    """
    options = options or MediaOptions()
    interrupt = interrupt or Interrupt()
    _prepare()
    check_url(url)
    if options.format == "alsa" and Path(_ALSA_CONFIG).exists():
        # PyAV's wheel looks for ALSA's configuration where it was built.
        os.environ.setdefault("ALSA_CONFIG_PATH", _ALSA_CONFIG)
    _check_options(url, options.ffmpeg)
    container = _open(url, options, interrupt)
    try:
        return Media(container, url, want, options, now, interrupt)
    except BaseException:
        container.close()
        raise


class Media:
    """An open source. Iterate over it once, in one thread; use it as a context manager or `close` it.

    Yields `Chunk` (at each wanted rate), `Picture` (those nearest to a cell's centre), `Anchor`, `Discontinuity`. The
    iteration of a file ends with the file. That of a live source raises `SourceError`, "eof" where the stream ends
    cleanly: a live source has no end of its own. All that was decoded comes out before.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        url: str,
        want: Want,
        options: MediaOptions,
        now: Callable[[], float],
        interrupt: Interrupt,
    ) -> None:
        """Use `open_media`."""
        self.corrupt_packets = 0
        """Packets that the source marked as damaged or that could not be decoded; they were skipped."""
        self._container = container
        self._url = url
        self._options = options
        self._now = now
        self._interrupt = interrupt
        self._busy = threading.Lock()
        self._closed = False
        self._audio = _best(container, "audio") if want.rates_hz else None
        self._video = _best(container, "video") if want.pictures else None
        _check_decodable(container, url, want, self._audio or self._video)
        finite_http = scheme_of(url) in ("http", "https") and container.duration is not None
        self.live: bool = is_live(url, options.format) and not finite_http
        """Whether media that nobody takes in time is lost."""
        self.duration_s: float | None = None
        """Length in seconds as the container says it; None for a live source or if it doesn't."""
        if not self.live and container.duration is not None:
            self.duration_s = container.duration / av.time_base
        for stream in container.streams:
            if stream is not self._audio and stream is not self._video:
                stream.discard = Discard.all
            elif stream.codec_context is not None:
                stream.codec_context.thread_count = 1  # threads of its own would fight with the networks' for the cores
        self._scaler = Scaler()
        rate = self._video.average_rate if self._video is not None else None
        self._picture_s = 1 / Fraction(rate) if rate else Fraction(1, 25)
        self._early: av.VideoFrame | None = None  # the first picture, while it has no timestamp
        self._shown_at: Fraction | None = None  # media time of the newest picture
        self._epochs = EpochBuilder(
            want.rates_hz if self._audio is not None else frozenset(),
            pictures=self._video is not None,
            hole_limit_s=options.hole_limit_s,
            picture_interval_s=float(self._picture_s),
            file_utc_s=None if self.live else _recorded_at(container, url, now),
        )

    @property
    def has_audio(self) -> bool:
        """Whether audio was wanted and there is a track of it."""
        return self._audio is not None

    @property
    def has_video(self) -> bool:
        """Whether pictures were wanted and there is a track of them."""
        return self._video is not None

    @property
    def overlap_samples(self) -> int:
        """Audio samples, at the source's rate, dropped because their timestamps said that they had come before."""
        return self._epochs.overlap_samples

    @property
    def stray_pictures(self) -> int:
        """Pictures left out because their timestamps fit neither the ones before nor the audio."""
        return self._epochs.stray_pictures

    def interrupt(self) -> None:
        """End a reading that blocks, from any thread, within about 0.2 s: the iteration raises `SourceError`."""
        self._interrupt.set()

    def close(self) -> None:
        """Interrupt the reading and free the source; from any thread, any number of times."""
        self._interrupt.set()
        # FFmpeg crashes if a container is closed under a thread that reads from it.
        if self._busy.acquire(timeout=5.0):
            try:
                if not self._closed:
                    self._closed = True
                    self._container.close()
            finally:
                self._busy.release()

    def __enter__(self) -> Media:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[MediaItem]:
        """All that the source gives, in order. Raises `SourceError`."""
        failure: SourceError | None = None
        anything, last_frame_s = False, time.monotonic()
        try:
            for packet, frames in self._packets():
                if self.live:
                    yield from self._stamps(packet)
                for frame in frames:
                    anything, last_frame_s = True, time.monotonic()
                    yield from self._push(frame)
                if self.live and time.monotonic() - last_frame_s > _UNDECODABLE_TIMEOUTS * self._options.read_timeout_s:
                    failure = SourceError("invalid_data", f"{shown(self._url)}: what comes can't be decoded")
                    break
        except SourceError as error:
            failure = error
        if failure is None and self.live:
            failure = SourceError("eof", f"{shown(self._url)}: the server ended the stream")
        elif failure is None and not anything:
            failure = SourceError(
                "empty", f"{shown(self._url)}: there is no sound and no picture in it: copy or record it again"
            )
        yield from self._epochs.flush()
        if failure is not None:
            raise failure

    def _packets(self) -> Iterator[tuple[Any, list[Any]]]:
        """Each packet with what it decodes to. Raises `SourceError` if the source ends in any way but cleanly."""
        packets, bad_reads = self._demux(), 0
        while True:
            problem: Exception | None = None
            packet, frames = None, []
            started = time.monotonic()
            with self._busy, interruptible(self._interrupt):
                if not self._interrupt.is_set():
                    try:
                        packet = next(packets, None)
                    except IndexError:
                        pass  # PyAV at the end of a source that has got a new track meanwhile: this is the end
                    except Exception as error:
                        problem = error
                    if packet is not None:
                        frames = self._decode(packet)
            # Errors are raised out here, not in `except`: they must not carry FFmpeg's, whose text holds the password.
            if self._interrupt.is_set():
                raise SourceError("timeout", f"{shown(self._url)}: the reading was interrupted")
            if isinstance(problem, av.error.InvalidDataError) and not self.live and bad_reads < _BAD_READS:
                # PyAV's generator is dead after an exception; a new one goes on behind the bad place.
                packets = self._demux()
                bad_reads += 1
                self.corrupt_packets += 1
            elif problem is not None:
                limit_s = self._options.read_timeout_s
                timed_out = time.monotonic() - started >= limit_s
                raise reading_failed(problem, self._url, live=self.live, timed_out=timed_out, timeout_s=limit_s)
            elif packet is None:
                return
            else:
                bad_reads = 0
                yield packet, frames

    def _demux(self) -> Iterator[Any]:
        return self._container.demux(tuple(s for s in (self._audio, self._video) if s is not None))

    def _decode(self, packet: Any) -> list[Any]:
        if packet.is_corrupt:
            self.corrupt_packets += 1
        try:
            frames: list[Any] = packet.decode()
        except EOFError:  # a decoder that has been flushed, at the end of a damaged file
            return []
        except (av.FFmpegError, ValueError):
            if not packet.is_corrupt:
                self.corrupt_packets += 1
            return []
        return frames

    def _push(self, frame: Any) -> Iterator[MediaItem]:
        at = None if frame.pts is None or frame.time_base is None else frame.pts * Fraction(frame.time_base)
        try:
            if isinstance(frame, av.VideoFrame):
                yield from self._push_picture(at, frame)
            elif frame.samples:
                yield from self._epochs.push_audio(at, frame.sample_rate, mono(frame))
        except (av.FFmpegError, ValueError):  # a frame of a size, rate or format that can't be converted
            self.corrupt_packets += 1

    def _push_picture(self, at: Fraction | None, frame: av.VideoFrame) -> Iterator[MediaItem]:
        early, self._early = self._early, None
        if at is None and self._shown_at is None and early is None:
            # RTSP's first picture has no timestamp: it comes right before the second.
            self._early = frame
            return
        if at is None:
            at = self._picture_s if self._shown_at is None else self._shown_at + self._picture_s
        if early is not None:
            yield from self._epochs.push_picture(at - self._picture_s, lambda: self._scaler.pixels(early))
        self._shown_at = at
        yield from self._epochs.push_picture(at, lambda: self._scaler.pixels(frame))

    def _stamps(self, packet: Any) -> Iterator[MediaItem]:
        if packet.pts is None or packet.time_base is None or not packet.size:
            return
        start = packet.pts * Fraction(packet.time_base)
        is_audio = packet.stream is self._audio
        # Sender reports of the two tracks differ by some ms: one track speaks for both.
        if (is_audio or self._audio is None) and packet.has_sidedata("prft"):
            utc_us, _flags = struct.unpack_from("<qi", bytes(packet.get_sidedata("prft")))
            yield from self._epochs.push_stamp(start, utc_us / 1e6, "rtcp")
        # The last sample of a packet can't have arrived before it sounded.
        end = start + (packet.duration or 0) * Fraction(packet.time_base) if is_audio else start
        yield from self._epochs.push_stamp(end, self._now(), "arrival")


_prepared = threading.Lock()


def _prepare() -> None:
    """Set PyAV up in this process, at the first opening: importing a module must change nothing."""
    with _prepared:
        # FFmpeg logging into Python can deadlock with other threads.
        av.logging.set_level(None)
        interrupts.install()


def _open(url: str, options: MediaOptions, interrupt: Interrupt) -> av.container.InputContainer:
    """The open container; all exceptions become `SourceError`s that know nothing of the original's text."""
    device = options.format in _DEVICE_FORMATS or url.startswith("/dev/")
    failure = None if device or scheme_of(url) else _file_problem(url)
    if failure is not None:
        raise failure
    # "file:" keeps FFmpeg from taking a colon or a % in a file's name for syntax of its own.
    name = url if device or scheme_of(url) else f"file:{url}"
    started = time.monotonic()
    try:
        with interruptible(interrupt):
            container = av.open(
                name,
                format=options.format,
                container_options=_ffmpeg_options(url, options),
                timeout=(options.open_timeout_s, options.read_timeout_s),
            )
    except Exception as error:
        timed_out = time.monotonic() - started >= options.open_timeout_s
        failure = opening_failed(error, url, device=device, timed_out=timed_out, timeout_s=options.open_timeout_s)
        if interrupt.is_set():
            failure = SourceError("timeout", f"{shown(url)}: the opening was interrupted")
    if failure is not None:
        # Outside of `except`: the error must not carry FFmpeg's, whose text holds the password.
        raise failure
    if container.format.name == "tty" and options.format != "tty":
        # FFmpeg takes .txt files for films of terminal art.
        container.close()
        raise SourceError("invalid_data", f"{shown(url)}: not an audio or video file (a text file): name a recording")
    return container


def _ffmpeg_options(url: str, options: MediaOptions) -> dict[str, str]:
    scheme = scheme_of(url)
    ours: dict[str, str] = {}
    if is_live(url) and scheme:
        ours["analyzeduration"] = _ANALYZE_US.get(scheme, _ANALYZE_LIVE_US)
    if scheme in ("rtsp", "rtsps"):
        ours["rtsp_transport"] = options.transport
    return {**ours, **options.ffmpeg}


def _check_options(url: str, names: Mapping[str, str]) -> None:
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
            "protocol", f"{shown(url)}: FFmpeg knows no option {', '.join(map(repr, unknown))}: mend the name"
        )


def _file_problem(path: str) -> SourceError | None:
    """What can be said of a local file without FFmpeg."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return SourceError("not_found", f"{path}: no such file: check the path")
    except (OSError, ValueError):
        return SourceError("not_found", f"{path}: can't be looked at: check the path")
    if stat.S_ISDIR(status.st_mode):
        return SourceError("invalid_data", f"{path}: a folder, not a media file: name a file in it")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return SourceError("empty", f"{path}: the file is empty: copy or record it again")
    return None


def _best(container: av.container.InputContainer, kind: Literal["audio", "video"]) -> Any:
    """The track to use: FFmpeg's choice among those that can be decoded and move (cover art does not)."""
    usable = [
        s
        for s in container.streams
        if s.type == kind and s.codec_context is not None and not s.disposition & Disposition.attached_pic
    ]
    best = container.streams.best(kind)
    return best if best in usable else next(iter(usable), None)


def _check_decodable(container: av.container.InputContainer, url: str, want: Want, found: Any) -> None:
    if found is not None:
        return
    kinds = sorted({s.type for s in container.streams})
    has = f"it has only {' and '.join(kinds)}" if kinds else "it has no tracks at all"
    if want.rates_hz and want.pictures:
        raise SourceError("invalid_data", f"{shown(url)}: no audio and no video that can be decoded ({has})")
    kind = "audio" if want.rates_hz else "video"
    reason = "no_audio" if want.rates_hz else "no_video"
    raise SourceError(reason, f"{shown(url)}: no {kind} that can be decoded ({has}): use a source with {kind}")


def _recorded_at(container: av.container.InputContainer, url: str, now: Callable[[], float]) -> float:
    """Unix seconds of a recording's start: its creation_time tag, else the file's mtime, else now."""
    for tags in (container.metadata, *(s.metadata for s in container.streams)):
        try:
            made = datetime.fromisoformat(tags.get("creation_time", ""))
        except ValueError:
            continue
        if made.year > 1980:  # muxers without a clock write 1904 or 1970
            return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    try:
        return os.stat(url.removeprefix("file:")).st_mtime
    except OSError:
        return now()
