"""What is listened to of decoded sound: the mix of all channels or one of them, and how loud it is."""

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
    """Listens to the frames of one source: `push` a frame, take what is heard of it, and now and then the levels."""

    def __init__(self, address: Address, channel: Channel) -> None:
        self._address = address
        self._channel = channel_index(channel)
        self._meter = LevelMeter()
        self._levels: deque[Level] = deque(maxlen=_MOST_LEVELS)

    def push(self, frame: av.AudioFrame) -> Floats:
        """What is heard of the frame: (n,). Raises `SourceError` if the channel that was chosen is not there (now)."""
        channels = channels_of(frame)
        if self._channel is not None and self._channel >= len(channels):
            raise SourceError("no_audio", no_channel(self._address, self._channel + 1, len(channels)))
        heard = mix(channels) if self._channel is None else channels[self._channel]
        self._levels += self._meter.push(frame.sample_rate, channels, heard, mixed=self._channel is None)
        return heard

    def flush(self) -> None:
        """The sound ends: the level of the second that runs is known."""
        self._levels += self._meter.flush()

    @property
    def has_levels(self) -> bool:
        """Whether `take_levels` has something to give."""
        return bool(self._levels)

    def take_levels(self) -> list[Level]:
        """How loud it was, second by second, since this was last asked; the newest ten minutes at most."""
        levels = list(self._levels)
        self._levels.clear()
        return levels
