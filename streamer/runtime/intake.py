"""The bounded queue between a reader and the worker.

A recording's reader waits for room and loses nothing. A live source's reader waits too, so that a burst loses nothing,
but only until its oldest media is too late: then that is dropped and counted. The next chunk's `start` shows the hole,
and the core masks it. Markers, which begin or end a connection or an epoch, are never dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from streamer.media.pace import Arrival
from streamer.types import Anchor, Chunk, EndReason, MediaItem, Picture

_MAX_ANCHORS = 64
_MAX_MARKERS = 256
"""With so many queued, even a live source's reader waits."""
_IN_TIME = Arrival()


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection was opened; the media that follows belongs to it. `connection` counts from 1."""

    connection: int
    has_audio: bool
    has_video: bool
    live: bool  # media that is too late is dropped


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection was lost or could not be opened: its epoch ends here. `final`: there will be no other."""

    reason: str  # as `SourceError.reason`, or `watchdog`
    message: str  # one line
    end: EndReason  # the `end_reason` of events that are still open
    final: bool
    failed: bool


Item: TypeAlias = MediaItem | Opened | Closed


@dataclass(frozen=True, slots=True)
class _Queued:
    """Times of a queued chunk or picture: when it arrived, and when it would have without bursts."""

    came_s: float
    due_s: float


class Intake:
    """One stream's queue, from its reader to the worker. Thread-safe.

    Each kind of media has its own limit, so that pictures never displace audio.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        picture_limit: int,
        clock_s: Callable[[], float],
        dropped: Callable[[str, int], None],
        wake: Callable[[], None],
    ) -> None:
        """`limit_s`: the most audio that may be queued, and how late a live source's oldest media may be, in seconds.

        `dropped(reason, count)` is called on every loss, `wake` after each put; `clock_s` is monotonic.
        """
        self._live = False
        self._limit_s = limit_s
        self._picture_limit = picture_limit
        self._clock_s = clock_s
        self._dropped = dropped
        self._wake = wake
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._held: dict[str, float] = {}  # kind -> queued amount, in the unit of its limit
        self._media: dict[str, deque[_Queued]] = {}  # kind -> the times of its queued chunks or pictures
        self._generation = 0
        self._newest_s: float | None = None
        self._patience_s = 0.0

    def limit(self, limit_s: float, picture_limit: int) -> None:
        """Change how much may wait. What is queued stays, until a live source's next media shows it to be too much."""
        with self._changed:
            self._limit_s, self._picture_limit = limit_s, picture_limit
            self._changed.notify_all()

    @property
    def live(self) -> bool:
        """Whether the source is live, so that media that is too late is dropped. False until it is `Opened`."""
        return self._live

    def attach(self) -> int:
        """Register a new reader and return its generation. Readers of older generations are refused from now on."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
            return self._generation

    def goes_on(self) -> None:
        """The stream has another reader to come: an end that is queued is not its last."""
        with self._changed:
            self._items = deque(
                replace(item, final=False) if isinstance(item, Closed) and item.final else item for item in self._items
            )

    def when_attached(self, generation: int, act: Callable[[], object]) -> bool:
        """Call `act` unless the reader of that generation has been replaced; False if it has.

        No other reader can attach while `act` runs, so a replaced reader can't overwrite what its successor wrote.
        """
        with self._changed:
            if generation != self._generation:
                return False
            act()
            return True

    def put(self, item: Item, generation: int, arrival: Arrival = _IN_TIME) -> bool:
        """Queue `item`, waiting for room as the module describes; False if this reader has been replaced."""
        kind, size = _kind(item)
        with self._changed:
            came_s = self._clock_s()
            while generation == self._generation and self._must_wait(kind, size):
                self._changed.wait(self._until_late_s(kind))
            if generation != self._generation:
                if isinstance(item, (Chunk, Picture)):
                    self._dropped("abandoned", 1)
                return False
            if isinstance(item, Opened):
                self._live = item.live
                self._patience_s = 0.0
            self._items.append(item)
            self._held[kind] = self._held.get(kind, 0.0) + size
            if isinstance(item, (Chunk, Picture)):
                self._media.setdefault(kind, deque()).append(_Queued(came_s, came_s + arrival.lead_s))
                self._newest_s = self._clock_s()
                self._patience_s = arrival.patience_s
            gives_way = kind == "anchor" or (self._live and kind != "marker")
            while gives_way and self._held[kind] - size > 1e-9 and self._has_to_go(kind):
                self._drop_oldest(kind)
        self._wake()
        return True

    def take(self) -> Item | None:
        """The oldest item; None if there is none."""
        with self._changed:
            if not self._items:
                return None
            item = self._items.popleft()
            self._gone(*_kind(item))
            self._changed.notify_all()
            return item

    def age_s(self) -> float:
        """How long the oldest media has waited; 0 if there is none."""
        with self._changed:
            now_s = self._clock_s()
            return now_s - min((media[0].came_s for media in self._media.values() if media), default=now_s)

    def late_s(self) -> float:
        """How late the oldest media is: its age, less how early it came in a burst; at least 0."""
        with self._changed:
            return max((self._late_s(kind) for kind in self._media), default=0.0)

    def silent_s(self, now_s: float) -> float:
        """How long media has been overdue, allowing for bursts; 0 before the first media."""
        with self._changed:
            return 0.0 if self._newest_s is None else max(0.0, now_s - self._newest_s - self._patience_s)

    @property
    def patience_s(self) -> float:
        """Seconds without media that are no stall, because the source's media comes in bursts."""
        return self._patience_s

    def __len__(self) -> int:
        return len(self._items)

    def _limit(self, kind: str) -> float:
        if kind == "marker":
            return _MAX_MARKERS
        if kind == "anchor":
            return _MAX_ANCHORS
        return self._picture_limit if kind == "picture" else self._limit_s

    def _must_wait(self, kind: str, size: float) -> bool:
        """Whether the reader must wait. An item larger than its limit is accepted when none of its kind is queued."""
        held = self._held.get(kind, 0.0)
        if kind == "anchor" or not held or held + size <= self._limit(kind) + 1e-9:
            return False
        return kind == "marker" or not self._live or self._late_s(kind) < self._limit_s - 1e-6

    def _late_s(self, kind: str) -> float:
        media = self._media.get(kind)
        return max(0.0, self._clock_s() - media[0].due_s) if media else 0.0

    def _until_late_s(self, kind: str) -> float | None:
        """Seconds until the oldest of the kind is late enough to be dropped; None: never."""
        if kind == "marker" or not self._live:
            return None
        return max(0.001, self._media[kind][0].due_s + self._limit_s - self._clock_s())

    def _has_to_go(self, kind: str) -> bool:
        """Whether the oldest of the kind exceeds its limit or is too late."""
        return self._held[kind] > self._limit(kind) + 1e-9 or self._late_s(kind) > self._limit_s

    def _gone(self, kind: str, size: float) -> None:
        """Update the totals: the oldest of the kind has left the queue."""
        self._held[kind] = self._held[kind] - size if self._held[kind] - size > 1e-9 else 0.0
        if kind in self._media:
            self._media[kind].popleft()

    def _drop_oldest(self, kind: str) -> None:
        for index, item in enumerate(self._items):
            found, size = _kind(item)
            if found == kind:
                del self._items[index]
                self._gone(kind, size)
                self._dropped("queue_audio" if kind.startswith("audio") else f"queue_{kind}", 1)
                return


def _kind(item: Item) -> tuple[str, float]:
    """The kind of `item`, which selects its limit, and its size in the unit of that limit."""
    if isinstance(item, Chunk):
        return f"audio_{item.rate_hz}", len(item.samples) / item.rate_hz
    if isinstance(item, Picture):
        return "picture", 1.0
    return ("anchor" if isinstance(item, Anchor) else "marker"), 1.0
