"""The stored messages of one store, in order and each once: what arrives live, and what has to be asked for.

Does no I/O and reads no clock: `live`, `through` and `reply` push what has arrived, `take` gives what is due, and
`request` says what to ask for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamer.sinks.wire import Head, Message

_MOST_HELD = 10_000
"""Live messages that wait for older ones; beyond, all are let go and asked for later."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message and its topic; `caught_up`: it was asked for."""

    topic: str
    message: Message | Head
    caught_up: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers of a store whose messages can't be had any more."""

    first: int
    last: int


class Line:
    """One store, as one subscriber sees it.

    `position` is the number up to which everything was taken or is not to be had. It begins with the first live
    message, or where it is told to.
    """

    def __init__(self, store: str, position: int | None = None) -> None:
        """`position`: the last number that was received earlier; None: begin with what is live now."""
        self.store = store
        self.position = position
        self.newest = position or 0
        """The highest number that is known to exist."""
        self._held: dict[int, Stored] = {}
        self._due: deque[Stored] = deque()

    @property
    def wanting(self) -> bool:
        """Whether there are messages to ask for."""
        return self.position is not None and self.newest > self.position

    def live(self, stored: Stored) -> None:
        """A message arrived that was just sent for the first time."""
        number = stored.message.stored_seq
        if self.position is None:
            self.position = self.newest = number - 1
        self.newest = max(self.newest, number)
        if number > self.position:
            if len(self._held) >= _MOST_HELD:
                self._held.clear()
            self._held[number] = stored
            self._let_go()

    def through(self, number: int) -> None:
        """All messages up to `number` have been sent, and so have arrived or were lost."""
        if self.position is None:
            self.position = number
        self.newest = max(self.newest, number)

    def exists(self, number: int) -> None:
        """There is a message with that number."""
        self.newest = max(self.newest, number)

    def reply(self, since: int, through: int, oldest: int, messages: Sequence[Stored]) -> Gap | None:
        """What was asked for has come: `messages` are all of those after `since` and up to `through`.

        Returns:
            The numbers of messages that were removed before we asked.

        """
        if self.position is None or since > self.position:
            return None  # an answer to an older question
        gone = Gap(self.position + 1, oldest - 1) if oldest - 1 > self.position else None
        for stored in messages:
            number = stored.message.stored_seq
            if number > self.position:
                self._due.append(stored)
                self.position = number
        self.position = max(self.position, through)
        self.newest = max(self.newest, self.position)
        self._let_go()
        return gone

    def give_up(self) -> Gap | None:
        """Go on without what can't be had; returns the numbers of that."""
        if self.position is None or not self.wanting:
            return None
        last = min(self._held, default=self.newest + 1) - 1
        gap = Gap(self.position + 1, last)
        self.position = last
        self._let_go()
        return gap

    def take(self) -> Stored | None:
        """The next message that is due; None: there is none now."""
        return self._due.popleft() if self._due else None

    def _let_go(self) -> None:
        """Live messages that nothing is missing before any more are due."""
        assert self.position is not None
        while (stored := self._held.pop(self.position + 1, None)) is not None:
            self._due.append(stored)
            self.position += 1
        if self._held and min(self._held) <= self.position:
            self._held = {number: one for number, one in self._held.items() if number > self.position}
