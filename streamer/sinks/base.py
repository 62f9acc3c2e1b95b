"""What a sink is, and how messages get their numbers and reach all sinks. One thread, the publisher's, owns it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from streamer.errors import SinkError, SinkGoneError, WireError
from streamer.sinks.wire import Message, check, topic


class Sink(Protocol):
    """A destination of messages. It never waits for a reader: only the reader that is too slow loses messages."""

    name: str
    """What metrics and log lines call it."""

    def send(self, message: Message) -> None:
        """Send a numbered message.

        Raises:
            SinkError: it is lost; the next one may be sent all the same.
            SinkGoneError: no message can be sent any more.

        """

    def poll(self, timeout_s: float) -> None:
        """Do what readers ask for, and wait for that for at most `timeout_s` seconds. Raises `SinkError`."""

    def reopen(self) -> None:
        """Open anew what may have been moved or removed since, as a log file after rotation. Raises `SinkError`."""

    def close(self) -> None:
        """Send queued messages for at most 2 s, then close. Never raises; a second call has no effect."""


class Numberer:
    """Gives each message of one run its numbers and the time, in the order in which they are sent."""

    def __init__(self, publisher: str, run: str, clock_utc_s: Callable[[], float]) -> None:
        """`run` is a name that no other start of a publisher of this name had; `clock_utc_s` gives Unix seconds."""
        self._publisher = publisher
        self.run = run
        self._clock_utc_s = clock_utc_s
        self._seq = 0
        self._topic_seq: Counter[str] = Counter()  # as many as streams times classes

    def number(self, message: Message) -> Message:
        """`message` as it goes out. Raises `WireError` if it can't be encoded; that uses up no number."""
        its_topic = topic(message)
        numbered = msgspec.structs.replace(
            message,
            publisher=self._publisher,
            run=self.run,
            seq=self._seq + 1,
            topic_seq=self._topic_seq[its_topic] + 1,
            sent_utc_s=round(self._clock_utc_s(), 6),
        )
        check(numbered)
        self._seq += 1
        self._topic_seq[its_topic] += 1
        return numbered


class Fanout:
    """All sinks as one: each message is numbered once, recorded, and then goes to every one of them.

    A sink that is gone is let go.
    """

    def __init__(
        self,
        numberer: Numberer,
        sinks: Sequence[Sink],
        failed: Callable[[str, SinkError], None],
        worked: Callable[[str], None],
        record: Callable[[Sequence[Message]], list[Message]] = list,
    ) -> None:
        """`failed(sink's name, error)` hears of each message that a sink could not take; the others still get it.

        `worked(sink's name)` hears of each message that it took. A message that can't be encoded, as of a model that
        gives NaN, is told of under the name `wire`. `record(numbered messages)` has stored them when it returns them as
        they are to be sent: nobody hears of what a crash could make undone.
        """
        self._numberer = numberer
        self._sinks = list(sinks)
        self._failed = failed
        self._worked = worked
        self._record = record
        self._had_sinks = bool(sinks)

    @property
    def names(self) -> list[str]:
        """The sinks that are left."""
        return [sink.name for sink in self._sinks]

    @property
    def all_gone(self) -> bool:
        """There were sinks, and none is left: nobody can hear of anything any more."""
        return self._had_sinks and not self._sinks

    def send(self, messages: Sequence[Message]) -> list[Message | None]:
        """Number the messages, record them together, and send each to every sink.

        Returns:
            The messages as they were sent; None for one that can't be encoded.

        """
        numbered = [self._numbered(message) for message in messages]
        recorded = iter(self._record([message for message in numbered if message is not None]))
        sent = [None if message is None else next(recorded) for message in numbered]
        for message in sent:
            if message is not None:
                self._send(message)
        return sent

    def _send(self, message: Message) -> None:
        for sink in tuple(self._sinks):
            if self._tried(sink, partial(sink.send, message)):
                self._worked(sink.name)

    def _numbered(self, message: Message) -> Message | None:
        try:
            numbered = self._numberer.number(message)
        except WireError as error:
            self._failed("wire", SinkError(str(error)))
            return None
        self._worked("wire")
        return numbered

    def poll(self, timeout_s: float) -> None:
        """Let every sink do what its readers ask for; together they wait for at most `timeout_s` seconds."""
        share_s = timeout_s / max(len(self._sinks), 1)
        for sink in tuple(self._sinks):
            self._tried(sink, partial(sink.poll, share_s))

    def reopen(self) -> None:
        """Let every sink open anew what may have been moved."""
        for sink in tuple(self._sinks):
            self._tried(sink, sink.reopen)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()

    def _tried(self, sink: Sink, act: Callable[[], None]) -> bool:
        try:
            act()
        except SinkError as error:
            if isinstance(error, SinkGoneError):
                self._sinks.remove(sink)
                sink.close()
            self._failed(sink.name, error)
            return False
        return True
