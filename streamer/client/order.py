"""Which messages are new, and how many were lost, by their numbers `seq` and `topic_seq`. Does no I/O."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from streamer.sinks.wire import Head, Message

_RUNS = 64
"""Publisher runs that are tracked at a time; beyond this, the least recently heard one is dropped."""
_MAX_UNSTORED = 20_000
"""Live messages without `stored_seq` to remember: they may arrive again when the store has them."""


@dataclass(slots=True)
class _Tally:
    """How many of the numbers from `first` to `newest` were received."""

    first: int
    newest: int
    received: int = 0

    def push(self, number: int) -> None:
        if number >= self.first:
            self.newest = max(self.newest, number)
            self.received += 1

    @property
    def lost(self) -> int:
        return max(0, self.newest - self.first + 1 - self.received)


@dataclass(slots=True)
class _Run:
    """Received messages of one run of a publisher."""

    topics: dict[str, int] = field(default_factory=dict)  # topic -> its newest `topic_seq`
    tallies: dict[str, _Tally] = field(default_factory=dict)  # by topic; of all messages: under ""


class Order:
    """Detects duplicates and counts missed messages by their numbers."""

    def __init__(self, *, everything: bool) -> None:
        """`everything`: all topics are subscribed to, so every gap in `seq` is a loss."""
        self._everything = everything
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()  # the most recently heard one is last
        self._past: Counter[str] = Counter()  # lost in runs that are no longer tracked
        self._unstored: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    @property
    def missed(self) -> Counter[str]:
        """Messages that were sent but not received, by publisher."""
        found = Counter(self._past)
        for (publisher, _), run in self._runs.items():
            found[publisher] += sum(tally.lost for tally in run.tallies.values())
        return +found

    def is_new(self, topic: str, message: Message | Head) -> bool:
        """Whether the message is newer than all others of its topic and run."""
        run = self._runs.get((message.publisher, message.run))
        return run is None or message.topic_seq > run.topics.get(topic, 0)

    def push(self, topic: str, message: Message | Head) -> bool:
        """Record a live message, unless it was received before; returns whether it is new."""
        run = self._run(message)
        if not self.is_new(topic, message):
            return False
        if not message.stored_seq and topic.startswith(("event/", "status/")):
            self._unstored[message.publisher, message.run, message.seq] = None
            if len(self._unstored) > _MAX_UNSTORED:
                self._unstored.popitem(last=False)
        self._count(run, topic, message, begins=not (self._everything and message.replay))
        return True

    def record(self, topic: str, message: Message | Head, *, caught_up: bool) -> bool:
        """Record a message whose `stored_seq` is new; returns False if it was received live before it was stored.

        `caught_up`: it came in a reply. Messages before the first live one of its run do not count as missed.
        """
        if self._unstored.pop((message.publisher, message.run, message.seq), self) is None:
            return False
        self._count(self._run(message), topic, message, begins=not caught_up)
        return True

    def _count(self, run: _Run, topic: str, message: Message | Head, *, begins: bool) -> None:
        run.topics[topic] = max(run.topics.get(topic, 0), message.topic_seq)
        of, number = ("", message.seq) if self._everything else (topic, message.topic_seq)
        if of not in run.tallies and begins:
            run.tallies[of] = _Tally(number, number)
        if of in run.tallies:
            run.tallies[of].push(number)

    def _run(self, message: Message | Head) -> _Run:
        key = (message.publisher, message.run)
        run = self._runs.setdefault(key, _Run())
        self._runs.move_to_end(key)
        if len(self._runs) > _RUNS:
            (publisher, _), past = self._runs.popitem(last=False)
            self._past[publisher] += sum(tally.lost for tally in past.tallies.values())
        return run
