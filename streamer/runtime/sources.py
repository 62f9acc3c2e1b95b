"""What a reader needs from an open source, in whichever process it is open."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from streamer.address import Address
from streamer.media.level import Level
from streamer.media.pace import Arrival
from streamer.media.source import Interrupt, MediaOptions
from streamer.media.tracks import AudioInput
from streamer.types import MediaItem, Want


class LevelSource(Protocol):
    """Supplies the input levels of a source; see `Ear`."""

    @property
    def has_levels(self) -> bool:
        """See `Ear`."""

    def take_levels(self) -> list[Level]:
        """See `Ear`."""


class OpenMedia(Protocol):
    """An open source, in this process (`Media`) or in another."""

    @property
    def live(self) -> bool:
        """See `Media`."""

    @property
    def audio(self) -> AudioInput | None:
        """See `Media`."""

    @property
    def clock_fault(self) -> str:
        """See `Media`."""

    @property
    def corrupt_packets(self) -> int:
        """See `Media`."""

    @property
    def overlap_samples(self) -> int:
        """See `Media`."""

    @property
    def stray_pictures(self) -> int:
        """See `Media`."""

    @property
    def other_process_s(self) -> float:
        """Processor time that another process spent on the newest item, in seconds; 0.0 for `Media`."""

    @property
    def ear(self) -> LevelSource:
        """See `Media`."""

    @property
    def arrival(self) -> Arrival:
        """See `Media`."""

    @property
    def rewinds(self) -> bool:
        """See `Media`."""

    @property
    def has_audio(self) -> bool:
        """See `Media`."""

    @property
    def has_video(self) -> bool:
        """See `Media`."""

    def __iter__(self) -> Iterator[MediaItem]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class MediaOpener(Protocol):
    """Opens a source; see `open_media`."""

    def __call__(self, source: Address, want: Want, options: MediaOptions, *, interrupt: Interrupt) -> OpenMedia:
        """Raises `SourceError`."""
