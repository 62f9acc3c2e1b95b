"""What a reader needs of an open source, wherever it is open."""

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


class Ears(Protocol):
    """Where the levels of a source come from; see `Ear`."""

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
    def elsewhere_s(self) -> float:
        """Processor time that the newest item took in another process."""

    @property
    def ear(self) -> Ears:
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


class OpensMedia(Protocol):
    """What opens a source; see `open_media`."""

    def __call__(self, source: Address, want: Want, options: MediaOptions, *, interrupt: Interrupt) -> OpenMedia:
        """Raises `SourceError`."""
