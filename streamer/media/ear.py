"""Reduces decoded audio to one channel, the mix or a chosen one, and measures its level."""

from __future__ import annotations

from collections import deque

import av

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.audio import channels_of, mix
from streamer.media.level import Level, LevelMeter
from streamer.media.tracks import Channel, channel_index, no_channel
from streamer.types import Floats

_MOST_LEVELS = 600


class Ear:
    """The audio of one source: `push` a frame to get its channel or mix; `take_levels` from time to time."""

    def __init__(self, address: Address, channel: Channel) -> None:
        self._address = address
        self._channel = channel_index(channel)
        self._meter = LevelMeter()
        self._levels: deque[Level] = deque(maxlen=_MOST_LEVELS)

    def push(self, frame: av.AudioFrame) -> Floats:
        """The channel or mix in use, (n,). Raises `SourceError` if the frame lacks the chosen channel."""
        channels = channels_of(frame)
        if self._channel is not None and self._channel >= len(channels):
            raise SourceError("no_audio", no_channel(self._address, self._channel + 1, len(channels)))
        heard = mix(channels) if self._channel is None else channels[self._channel]
        self._levels += self._meter.push(frame.sample_rate, channels, heard, mixed=self._channel is None)
        return heard

    def flush(self) -> None:
        """The audio ends: measure the incomplete second."""
        self._levels += self._meter.flush()

    @property
    def has_levels(self) -> bool:
        """Whether `take_levels` would return any."""
        return bool(self._levels)

    def take_levels(self) -> list[Level]:
        """The level of each second since the last call; at most the latest ten minutes."""
        levels = list(self._levels)
        self._levels.clear()
        return levels
