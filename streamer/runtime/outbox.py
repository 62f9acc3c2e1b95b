"""The bounded queue of messages for the publishing thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamer.evidence import Evidence
from streamer.sinks.wire import Message, ScoresMessage, TagsMessage


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that has not been numbered yet."""

    message: Message
    onset_arrival_utc_s: float | None = None  # of an onset whose latency can be measured
    evidence: Evidence | None = None  # of an event; only for the store


class Outbox:
    """First in, first out. When it is full, the oldest tags or scores are dropped; without any, the oldest message."""

    def __init__(self, limit: int, dropped: Callable[[Message], None]) -> None:
        """Holds `limit` messages; `dropped` is called with each one lost."""
        self._limit = limit
        self._dropped = dropped
        self._changed = threading.Condition()
        self._waiting: deque[Outgoing] = deque()
        self._closed = False
        self.lost = 0
        """Messages that were dropped."""

    def put(self, message: Message, onset_arrival_utc_s: float | None = None, evidence: Evidence | None = None) -> None:
        """Queue a message; never waits."""
        with self._changed:
            self._waiting.append(Outgoing(message, onset_arrival_utc_s, evidence))
            if len(self._waiting) > self._limit:
                victim = next(
                    (i for i, one in enumerate(self._waiting) if isinstance(one.message, (TagsMessage, ScoresMessage))),
                    0,
                )
                self.lost += 1
                self._dropped(self._waiting[victim].message)
                del self._waiting[victim]
            self._changed.notify()

    def close(self) -> None:
        """Mark the end: nothing will be put any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def finished(self) -> bool:
        """Whether it is closed and everything has been taken."""
        with self._changed:
            return self._closed and not self._waiting

    def take(self, timeout_s: float) -> Iterator[Outgoing]:
        """All queued messages, after waiting at most `timeout_s` seconds for the first."""
        with self._changed:
            if not self._waiting and not self._closed:
                self._changed.wait(timeout_s)
            taken, self._waiting = self._waiting, deque()
        return iter(taken)
