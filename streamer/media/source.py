"""Reads a live stream, file or device as audio, pictures, anchors and discontinuities.

No threads and no state outside a `Media`; one thread reads it, any thread may `interrupt` it. The rest of the program
sees media only as `streamer.types`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import TracebackType

import av
from av.packet import Packet
from av.stream import Discard, Stream

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.clocks import clock_fault, recorded_at, sender_report_s, start_of, start_of_packet
from streamer.media.ear import Ear
from streamer.media.epoch import EpochBuilder
from streamer.media.faults import nothing_in, stream_ended
from streamer.media.interrupt import Interrupt
from streamer.media.opening import MediaOptions, OpenContainer, open_container
from streamer.media.pace import Arrival
from streamer.media.packets import Frame, Packets
from streamer.media.pictures import Scaler
from streamer.media.tracks import (
    AudioInput,
    audio_input,
    check_decodable,
    choose_audio,
    choose_video,
)
from streamer.types import MediaItem, Want

__all__ = ["Interrupt", "Media", "MediaOptions", "Want", "open_media"]

_UNDECODABLE_TIMEOUTS = 3  # read timeouts of packets without a decoded frame, until the source is given up
_GUESSED_DURATION = {"aac", "ac3", "eac3", "amr", "mp3", "mpeg", "h264", "hevc"}
"""Formats without an index or a header that states the duration."""


def open_media(
    source: Address | str,
    want: Want,
    options: MediaOptions | None = None,
    *,
    now: Callable[[], float] = time.time,
    interrupt: Interrupt | None = None,
) -> Media:
    """Open `source` (a URL, a path or, with `options.format`, a device) for the media that `want` names.

    `now` returns Unix seconds for the arrival clock. `interrupt` lets another thread end the opening too.
    Raises `SourceError`, also if nothing wanted can be decoded. If only one of audio and video is missing, that is no
    error: see `Media.has_audio`, `Media.has_video`.
    """
    options = options or MediaOptions()
    interrupt = interrupt or Interrupt()
    address = Address.parse(source) if isinstance(source, str) else source
    opened = open_container(address, options, interrupt)
    try:
        return Media(opened, address, want, options, now, interrupt)
    except BaseException:
        opened.close()
        raise


class Media:
    """An open source. Iterate over it once, in one thread; use it as a context manager or `close` it.

    Yields `Chunk` (at each wanted rate), `Picture` (those nearest to a cell's centre), `Anchor`, `Discontinuity`.
    Iterating over a recording ends with it. Iterating over a live source ends with `SourceError`, "eof" if the stream
    ended cleanly, because a live source has no end of its own. All decoded media is yielded first.
    """

    other_process_s = 0.0
    """Processor time that other processes spent on it: none."""

    def __init__(
        self,
        opened: OpenContainer,
        address: Address,
        want: Want,
        options: MediaOptions,
        now: Callable[[], float],
        interrupt: Interrupt,
    ) -> None:
        """Use `open_media`."""
        self.clock_fault: str
        """One line about an implausible clock of the source, which is ignored; empty if all is well."""
        container = opened.container
        self._opened = opened
        self._address = address
        self._options = options
        self._now = now
        self._interrupt = interrupt
        self._unfit = 0  # frames that could not be converted
        self._audio = choose_audio(container, address, options.audio_track) if want.rates_hz else None
        self._video = choose_video(container) if want.pictures else None
        check_decodable(container, address, want, self._audio or self._video)
        self.audio: AudioInput | None = None
        """The audio in use; None without audio."""
        if self._audio is not None:
            self.audio = audio_input(container, address, self._audio, options.channel)
        self.ear = Ear(address, options.channel)
        """Measures the audio's level."""
        recorded_s, self.clock_fault = (None, "") if opened.live else recorded_at(container, address, now)
        self.live: bool = opened.live
        """Whether it runs at its own pace and has no end of its own: see `streamer.media.liveness`."""
        self.duration_s: float | None = None
        """Duration in seconds, as the container states it; None for a live source or if unknown."""
        if not self.live and container.duration is not None:
            self.duration_s = container.duration / av.time_base
        for stream in container.streams:
            if stream is not self._audio and stream is not self._video:
                stream.discard = Discard.all
            elif stream.codec_context is not None:
                stream.codec_context.thread_count = 1  # more would compete with the networks' threads for the cores
        self._scaler = Scaler()
        rate = self._video.average_rate if self._video is not None else None
        self._picture_s = 1 / Fraction(rate) if rate else Fraction(1, 25)
        tracks = tuple(track for track in (self._audio, self._video) if track is not None)
        self._packets = Packets(opened, address, tracks, options.read_timeout_s, interrupt)
        self._early: av.VideoFrame | None = None  # the first picture, while it has no timestamp
        self._shown_at: Fraction | None = None  # media time of the latest picture
        self._epochs = EpochBuilder(
            want.rates_hz if self._audio is not None else frozenset(),
            pictures=self._video is not None,
            hole_limit_s=options.hole_limit_s,
            picture_interval_s=float(self._picture_s),
            file_start=None if self.live else start_of(container),
            file_utc_s=recorded_s,
            stamped_on_arrival=options.ffmpeg.get("use_wallclock_as_timestamps", "0") not in ("0", "false", "no"),
        )

    @property
    def tells_duration(self) -> bool:
        """Whether `duration_s` comes from a header or timestamps, and is not FFmpeg's guess from size and bit rate."""
        return self._opened.container.format.name not in _GUESSED_DURATION

    @property
    def has_audio(self) -> bool:
        """Whether audio is wanted and there is an audio track."""
        return self._audio is not None

    @property
    def has_video(self) -> bool:
        """Whether pictures are wanted and there is a video track."""
        return self._video is not None

    @property
    def corrupt_packets(self) -> int:
        """Packets that the source marked as damaged or that could not be decoded; they were skipped."""
        return self._packets.corrupt + self._unfit

    @property
    def overlap_samples(self) -> int:
        """Audio samples, at the source's rate, dropped because their timestamps showed them to be repeated."""
        return self._epochs.overlap_samples

    @property
    def stray_pictures(self) -> int:
        """Pictures dropped because their timestamps fit neither the earlier pictures nor the audio."""
        return self._epochs.stray_pictures

    @property
    def rewinds(self) -> bool:
        """Whether opening it again yields the same media from its start."""
        return not self.live and self._opened.carrier != "pipe"

    @property
    def arrival(self) -> Arrival:
        """How the latest media of a live source arrived: in time or in a burst."""
        return self._packets.arrival

    def interrupt(self) -> None:
        """End reading within about 0.2 s, from any thread: the iteration raises `SourceError`."""
        self._interrupt.set()

    def close(self) -> None:
        """Interrupt reading and release the source. May be called from any thread, and repeatedly."""
        self._packets.close()

    def __enter__(self) -> Media:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[MediaItem]:
        """Yield the source's media in order. Raises `SourceError`."""
        failure: SourceError | None = None
        anything, last_frame_s = False, time.monotonic()
        try:
            for packet, frames in self._packets:
                arrived_s = self._now()
                if self.live:
                    yield from self._sender_report(packet)
                for frame in frames:
                    anything, last_frame_s = True, time.monotonic()
                    yield from self._push(frame)
                if self.live:
                    yield from self._arrived(packet, arrived_s)
                limit_s = _UNDECODABLE_TIMEOUTS * self._options.read_timeout_s + self.arrival.patience_s
                if self.live and time.monotonic() - last_frame_s > limit_s:
                    failure = SourceError("invalid_data", f"{self._address}: the data can't be decoded")
                    break
        except SourceError as error:
            failure = error
        if failure is None and self.live:
            failure = stream_ended(self._address, self._opened.carrier)
        elif failure is None and not anything:
            failure = nothing_in(self._address, self._opened.carrier)
        yield from self._epochs.flush()
        self.ear.flush()
        if failure is not None:
            raise failure

    def _push(self, frame: Frame) -> Iterator[MediaItem]:
        at = None if frame.pts is None or frame.time_base is None else frame.pts * Fraction(frame.time_base)
        try:
            if isinstance(frame, av.VideoFrame):
                yield from self._push_picture(at, frame)
            elif frame.samples:
                yield from self._epochs.push_audio(at, frame.sample_rate, self.ear.push(frame))
        except (av.FFmpegError, ValueError):  # its size, rate or format can't be converted
            self._unfit += 1

    def _push_picture(self, at: Fraction | None, frame: av.VideoFrame) -> Iterator[MediaItem]:
        early, self._early = self._early, None
        if at is None and self._shown_at is None and early is None:
            # RTSP's first picture has no timestamp: it is placed directly before the second.
            self._early = frame
            return
        if at is None:
            at = self._picture_s if self._shown_at is None else self._shown_at + self._picture_s
        if early is not None:
            yield from self._epochs.push_picture(at - self._picture_s, lambda: self._scaler.pixels(early))
        self._shown_at = at
        yield from self._epochs.push_picture(at, lambda: self._scaler.pixels(frame))

    def _sender_report(self, packet: Packet[Stream]) -> Iterator[MediaItem]:
        # The sender reports of the two tracks differ by some ms, so only one track's are used.
        at = start_of_packet(packet)
        utc_s = sender_report_s(packet) if at is not None and self._leads(packet) else None
        if at is not None and utc_s is not None:
            fault = clock_fault(utc_s, self._now())
            if fault:
                self.clock_fault = fault
            else:
                yield from self._epochs.push_stamp(at, utc_s, "rtcp")

    def _arrived(self, packet: Packet[Stream], utc_s: float) -> Iterator[MediaItem]:
        at = start_of_packet(packet)
        if at is not None and packet.time_base is not None and self._leads(packet):
            # A packet can't have arrived before its last sample was recorded.
            duration = (packet.duration or 0) * Fraction(packet.time_base) if packet.stream is self._audio else 0
            yield from self._epochs.push_arrival(at + duration, utc_s)

    def _leads(self, packet: Packet[Stream]) -> bool:
        """Whether the packet belongs to the track whose clock is the epoch's."""
        return packet.stream is self._audio or self._audio is None
