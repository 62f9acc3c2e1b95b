"""The bounded queue between a reader and the worker.

A live source drops its oldest media and counts it; a dropped chunk is a hole that the core masks, because the
next chunk's `start` jumps. A file's reader waits instead and loses nothing. Where a connection or an epoch begins and
ends is never dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from streamer.types import Anchor, Chunk, EndReason, MediaItem, Picture

_MAX_ANCHORS = 64
_MAX_MARKERS = 256
"""More epochs than this are not kept waiting: the reader waits, live or not."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection stands; the media behind this belongs to it. `connection` counts up from 1."""

    connection: int
    has_audio: bool
    has_video: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is gone or could not be made: its epoch ends here. `final`: there will be no other."""

    reason: str  # a word of `SourceError.reason`
    message: str  # one line
    end: EndReason  # how the events still open are closed
    final: bool
    failed: bool


Item: TypeAlias = MediaItem | Opened | Closed


class Intake:
    """One stream's queue: one reader puts, the worker takes. Thread-safe.

    Each kind of media has its own limit, so that pictures never push out audio.
    """

    def __init__(
        self,
        *,
        lossy: bool,
        audio_limit_s: float,
        picture_limit: int,
        clock_s: Callable[[], float],
        dropped: Callable[[str, int], None],
        wake: Callable[[], None],
    ) -> None:
        """`dropped(reason, count)` hears of every loss; `wake` is called after each put; `clock_s` is monotonic."""
        self._lossy = lossy
        self._audio_limit_s = audio_limit_s
        self._picture_limit = picture_limit
        self._clock_s = clock_s
        self._dropped = dropped
        self._wake = wake
        self._changed = threading.Condition()
        self._items: deque[tuple[float, Item]] = deque()  # arrival by `clock_s`
        self._held: dict[str, float] = {}  # kind -> what is queued, in the unit of its limit
        self._generation = 0
        self._newest_s: float | None = None

    @property
    def lossy(self) -> bool:
        """Whether old media gives way to new (a live source), or the reader waits (a file)."""
        return self._lossy

    @lossy.setter
    def lossy(self, lossy: bool) -> None:
        with self._changed:
            self._lossy = lossy
            self._changed.notify_all()

    def attach(self) -> int:
        """A new reader will put from now on; gives the generation that it puts under. Older ones are refused."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
            return self._generation

    def put(self, item: Item, generation: int) -> bool:
        """Queue `item`; False if this reader has been replaced. A file's reader waits here for room."""
        kind, size = _kind(item)
        with self._changed:
            while generation == self._generation and self._must_wait(kind, size):
                self._changed.wait()
            if generation != self._generation:
                if isinstance(item, (Chunk, Picture)):
                    self._dropped("abandoned", 1)
                return False
            now_s = self._clock_s()
            self._items.append((now_s, item))
            self._held[kind] = self._held.get(kind, 0.0) + size
            if isinstance(item, (Chunk, Picture)):
                self._newest_s = now_s
            gives_way = kind == "anchor" or (self._lossy and kind != "marker")
            while gives_way and self._held[kind] > self._limit(kind) and self._held[kind] - size > 1e-9:
                self._drop_oldest(kind)
        self._wake()
        return True

    def take(self) -> Item | None:
        """The oldest item; None if there is none."""
        with self._changed:
            if not self._items:
                return None
            _, item = self._items.popleft()
            kind, size = _kind(item)
            self._held[kind] = self._held[kind] - size if self._held[kind] - size > 1e-9 else 0.0
            self._changed.notify_all()
            return item

    def age_s(self) -> float:
        """How long the oldest item has waited; 0 if there is none."""
        with self._changed:
            return self._clock_s() - self._items[0][0] if self._items else 0.0

    @property
    def newest_s(self) -> float | None:
        """When media last arrived (monotonic seconds), taken or not; None before the first."""
        return self._newest_s

    def __len__(self) -> int:
        return len(self._items)

    def _limit(self, kind: str) -> float:
        if kind == "marker":
            return _MAX_MARKERS
        if kind == "anchor":
            return _MAX_ANCHORS
        return self._picture_limit if kind == "picture" else self._audio_limit_s

    def _must_wait(self, kind: str, size: float) -> bool:
        """Something that is larger than the limit alone gets in when nothing of its kind is queued."""
        held = self._held.get(kind, 0.0)
        waits = kind == "marker" or (not self._lossy and kind != "anchor")
        return waits and held > 0 and held + size > self._limit(kind)

    def _drop_oldest(self, kind: str) -> None:
        for index, (_, item) in enumerate(self._items):
            found, size = _kind(item)
            if found == kind:
                del self._items[index]
                self._held[kind] -= size
                self._dropped("queue_audio" if kind.startswith("audio") else f"queue_{kind}", 1)
                return


def _kind(item: Item) -> tuple[str, float]:
    """What limit `item` falls under, and how much of it it takes."""
    if isinstance(item, Chunk):
        return f"audio_{item.rate_hz}", len(item.samples) / item.rate_hz
    if isinstance(item, Picture):
        return "picture", 1.0
    return ("anchor" if isinstance(item, Anchor) else "marker"), 1.0
