"""Puts the messages of one store in order, each once: those that arrive live, and those that have to be requested.

Does no I/O and reads no clock: `live`, `through`, `exists` and `reply` accept what has arrived, `take` returns the next
message, and `behind` tells whether to request the messages after `position`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamer.sinks.wire import Head, Message

_MAX_HELD = 10_000
"""At most this many live messages wait for earlier ones; beyond that all are discarded, and requested later."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message and its topic; `caught_up`: it came in a reply, not live."""

    topic: str
    message: Message | Head
    caught_up: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of numbers of a store whose messages are unavailable."""

    first: int
    last: int


class Cursor:
    """A subscriber's position in one store.

    Every message up to number `position` has been returned or is ready in `take`, or is unavailable. It starts just
    before the first live message, or where `position` says.
    """

    def __init__(self, store: str, position: int | None = None) -> None:
        """`position`: the last number that was received earlier; None: begin with live messages."""
        self.store = store
        self.position = position
        self.newest = position or 0
        """The highest number known to exist."""
        self._held: dict[int, Stored] = {}
        self._ready: deque[Stored] = deque()

    @property
    def behind(self) -> bool:
        """Whether messages are missing and should be requested."""
        return self.position is not None and self.newest > self.position

    def live(self, stored: Stored) -> None:
        """Accept a live message (not a replay)."""
        number = stored.message.stored_seq
        if self.position is None:
            self.position = self.newest = number - 1
        self.newest = max(self.newest, number)
        if number > self.position:
            if len(self._held) >= _MAX_HELD:
                self._held.clear()
            self._held[number] = stored
            self._release()

    def through(self, number: int) -> None:
        """All messages up to `number` were sent: those that have not arrived are lost."""
        if self.position is None:
            self.position = number
        self.newest = max(self.newest, number)

    def exists(self, number: int) -> None:
        """A message with this number exists."""
        self.newest = max(self.newest, number)

    def reply(self, since: int, through: int, oldest: int, messages: Sequence[Stored]) -> Gap | None:
        """Accept a reply: `messages` are all matching ones after `since` and up to `through`.

        Returns:
            The range of messages that were removed from the store before the request; None: there is none.

        """
        if self.position is None or since > self.position:
            return None  # the reply to an older request
        gone = Gap(self.position + 1, oldest - 1) if oldest - 1 > self.position else None
        for stored in messages:
            number = stored.message.stored_seq
            if number > self.position:
                self._ready.append(stored)
                self.position = number
        self.position = max(self.position, through)
        self.newest = max(self.newest, self.position)
        self._release()
        return gone

    def skip_gap(self) -> Gap | None:
        """Skip the missing messages before the next live one; returns their range, None if none are missing."""
        if self.position is None or not self.behind:
            return None
        last = min(self._held, default=self.newest + 1) - 1
        gap = Gap(self.position + 1, last)
        self.position = last
        self._release()
        return gap

    def take(self) -> Stored | None:
        """The next message; None: there is none yet."""
        return self._ready.popleft() if self._ready else None

    def _release(self) -> None:
        """Release the live messages that no longer wait for an earlier one."""
        assert self.position is not None
        while (stored := self._held.pop(self.position + 1, None)) is not None:
            self._ready.append(stored)
            self.position += 1
        if self._held and min(self._held) <= self.position:
            self._held = {number: one for number, one in self._held.items() if number > self.position}
