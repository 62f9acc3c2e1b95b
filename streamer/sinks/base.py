"""What a sink is, and how messages get their numbers and reach all sinks. One thread, the publisher's, owns it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from streamer.errors import SinkError, WireError
from streamer.sinks.wire import Message, check, topic


class Sink(Protocol):
    """A place that messages go to. Never waits for a reader; what a reader is too slow for is lost to it alone."""

    name: str
    """What metrics and log lines call it."""

    def send(self, message: Message) -> None:
        """Send a numbered message. Raises `SinkError` if it is lost; the next one may be sent all the same."""

    def poll(self, timeout_s: float) -> None:
        """Do what readers ask for, and wait for that for at most `timeout_s` seconds. Raises `SinkError`."""

    def close(self) -> None:
        """Send what is still on its way, for at most 2 s, and let go. Never raises; a second time it does nothing."""


class Numberer:
    """Gives each message of one run its numbers and the time, in the order in which they are sent."""

    def __init__(self, publisher: str, run: str, clock_utc_s: Callable[[], float]) -> None:
        """`run` is a name that no other start of a publisher of this name had; `clock_utc_s` gives Unix seconds."""
        self._publisher = publisher
        self._run = run
        self._clock_utc_s = clock_utc_s
        self._seq = 0
        self._topic_seq: Counter[str] = Counter()  # as many as streams times classes

    def number(self, message: Message) -> Message:
        """`message` as it goes out. Raises `WireError` if it can't be encoded; that uses up no number."""
        its_topic = topic(message)
        numbered = msgspec.structs.replace(
            message,
            publisher=self._publisher,
            run=self._run,
            seq=self._seq + 1,
            topic_seq=self._topic_seq[its_topic] + 1,
            sent_utc_s=round(self._clock_utc_s(), 6),
        )
        check(numbered)
        self._seq += 1
        self._topic_seq[its_topic] += 1
        return numbered


class Fanout:
    """All sinks as one: each message is numbered once and goes to every one of them."""

    def __init__(self, numberer: Numberer, sinks: Sequence[Sink], failed: Callable[[str, SinkError], None]) -> None:
        """`failed(sink's name, error)` hears of each message that a sink could not take; the others still get it.

        A message that can't be encoded, as of a model that gives NaN, is told of under the name `wire`.
        """
        self._numberer = numberer
        self._sinks = tuple(sinks)
        self._failed = failed

    def send(self, message: Message) -> Message | None:
        """Number the message, send it to every sink and return it; None if it can't be encoded."""
        try:
            numbered = self._numberer.number(message)
        except WireError as error:
            self._failed("wire", SinkError(str(error)))
            return None
        for sink in self._sinks:
            try:
                sink.send(numbered)
            except SinkError as error:
                self._failed(sink.name, error)
        return numbered

    def poll(self, timeout_s: float) -> None:
        """Let every sink do what its readers ask for; together they wait for at most `timeout_s` seconds."""
        for sink in self._sinks:
            try:
                sink.poll(timeout_s / len(self._sinks))
            except SinkError as error:
                self._failed(sink.name, error)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()
