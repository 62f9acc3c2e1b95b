"""Chooses and describes the audio and video tracks of a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from streamer.address import Address
from streamer.errors import SourceError
from streamer.types import Want

Channel: TypeAlias = int | Literal["mix", "left", "right"]
"""The mean of all channels, or one of them, counted from 1; `left` is the first and `right` the second."""

_LANGUAGE = re.compile(r"[A-Za-z0-9-]{2,35}")  # RFC 5646


@dataclass(frozen=True, slots=True)
class AudioInput:
    """The audio in use."""

    codec: str  # FFmpeg's name
    rate_hz: int
    channels: int
    channel: str  # "mix", or the number of the channel in use
    track: int  # among the source's audio tracks, from 1
    tracks: int
    language: str  # as the container states it; empty if unknown

    def __str__(self) -> str:
        channels = "mono" if self.channels == 1 else f"{self.channels} channels"
        if self.channels > 1:
            channels += ", their mix" if self.channel == "mix" else f", number {self.channel}"
        language = f", {self.language}" if self.language else ""
        return f"{self.codec} {self.rate_hz} Hz, {channels}, track {self.track} of {self.tracks}{language}"


def channel_index(channel: Channel) -> int | None:
    """The channel's index from 0; None for the mix."""
    if isinstance(channel, int):
        return channel - 1
    return {"mix": None, "left": 0, "right": 1}[channel]


def choose_audio(container: InputContainer, address: Address, track: int | str | None) -> AudioStream | None:
    """The audio track to use; None if the source has none.

    `track` is a number from 1, or a language, whose first track is used; None: FFmpeg's choice among the tracks that
    can be decoded. Raises `SourceError`, with a list of the tracks, if the source has audio but not that track.
    """
    if track is None:
        best = container.streams.best("audio")
        usable = [one for one in container.streams.audio if _usable(one)]
        return best if isinstance(best, AudioStream) and best in usable else next(iter(usable), None)
    tracks = list(container.streams.audio)
    if isinstance(track, int):
        found = tracks[track - 1 : track]
    else:
        found = [one for one in tracks if _language(one).lower() == track.lower()]
    if found and _usable(found[0]):
        return found[0]
    if not tracks:
        return None
    wanted = f"number {track}" if isinstance(track, int) else f"in {track!r}"
    problem = f"audio track {wanted} can't be decoded" if found else f"there is no audio track {wanted}"
    raise SourceError("no_audio", f"{address}: {problem}; it has {_listed(tracks)}")


def choose_video(container: InputContainer) -> VideoStream | None:
    """The video track to use: FFmpeg's choice among those that can be decoded, cover art excluded."""
    usable = [one for one in container.streams.video if _usable(one)]
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in usable else next(iter(usable), None)


def check_decodable(container: InputContainer, address: Address, want: Want, found: Stream | None) -> None:
    """Raise `SourceError` if none of what is wanted was `found`."""
    if found is not None:
        return
    kinds = sorted({one.type for one in container.streams})
    has = f"it has only {' and '.join(kinds)}" if kinds else "it has no tracks at all"
    if want.rates_hz and want.pictures:
        raise SourceError("invalid_data", f"{address}: no audio and no video that can be decoded ({has})")
    kind = "audio" if want.rates_hz else "video"
    reason = "no_audio" if want.rates_hz else "no_video"
    raise SourceError(reason, f"{address}: no {kind} that can be decoded ({has}): use a source with {kind}")


def audio_input(container: InputContainer, address: Address, stream: AudioStream, channel: Channel) -> AudioInput:
    """A description of the audio in use. Raises `SourceError` if the track has no such channel."""
    tracks = list(container.streams.audio)
    channels = stream.codec_context.channels
    index = channel_index(channel)
    if index is not None and channels and index >= channels:
        raise SourceError("no_audio", no_channel(address, index + 1, channels))
    return AudioInput(
        codec=stream.codec_context.name,
        rate_hz=stream.codec_context.sample_rate or 0,
        channels=channels,
        channel="mix" if index is None else str(index + 1),
        track=tracks.index(stream) + 1,
        tracks=len(tracks),
        language=_language(stream),
    )


def no_channel(address: Address, number: int, channels: int) -> str:
    """The error line for a channel that the track does not have."""
    has = "one channel" if channels == 1 else f"{channels} channels"
    return f"{address}: there is no channel {number}; its audio track has {has}"


def _usable(stream: Stream) -> bool:
    # PyAV's types say that there always is one, but a track of an unknown codec has none.
    context: object = stream.codec_context
    return context is not None and not stream.disposition & Disposition.attached_pic


def _language(stream: Stream) -> str:
    language = stream.language or ""
    # It is used in logs and labels, so only language tags are passed on.
    return language if _LANGUAGE.fullmatch(language) and language != "und" else ""


def _listed(tracks: Sequence[AudioStream]) -> str:
    parts = []
    for number, one in enumerate(tracks, 1):
        context: object = one.codec_context
        what = "unknown codec"
        if context is not None:
            what = f"{one.codec_context.name} {one.codec_context.sample_rate} Hz, {one.codec_context.channels} channels"
        parts.append(f"{number} ({', '.join(filter(None, (what, _language(one))))})")
    return "; ".join(parts)
