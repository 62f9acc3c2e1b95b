"""What a sink is, and how messages are numbered and sent to all sinks. Only the publisher's thread uses any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from streamer.errors import SinkError, SinkGoneError, WireError
from streamer.sinks.wire import Message, check, topic


class Sink(Protocol):
    """A destination for messages. It never blocks on a slow reader: only that reader loses messages."""

    name: str
    """Its name in metrics and log lines."""

    def send(self, message: Message) -> None:
        """Send a numbered message.

        Raises:
            SinkError: this message is lost; the sink can still be used.
            SinkGoneError: this message and all later ones are lost.

        """

    def poll(self, timeout_s: float) -> None:
        """Serve readers' requests, waiting at most `timeout_s` seconds for one. Raises `SinkError`."""

    def reopen(self) -> None:
        """Reopen whatever may have been moved or removed, such as a file after log rotation. Raises `SinkError`."""

    def close(self) -> None:
        """Send queued messages for at most 2 s, then close. Never raises; a second call has no effect."""


class Numberer:
    """Gives each message its sequence numbers and send time, in the order of sending."""

    def __init__(self, publisher: str, run: str, clock_utc_s: Callable[[], float]) -> None:
        """`run` is unique to this start of the publisher; `clock_utc_s` returns Unix seconds."""
        self._publisher = publisher
        self.run = run
        self._clock_utc_s = clock_utc_s
        self._seq = 0
        self._topic_seq: Counter[str] = Counter()  # bounded: streams times classes

    def number(self, message: Message) -> Message:
        """`message` with its numbers. Raises `WireError` if it can't be encoded; the numbers are then not used up."""
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
    """All sinks as one: each message is numbered once, recorded, and sent to every sink.

    A sink that is gone is removed.
    """

    def __init__(
        self,
        numberer: Numberer,
        sinks: Sequence[Sink],
        failed: Callable[[str, SinkError], None],
        worked: Callable[[str], None],
        record: Callable[[Sequence[Message]], list[Message]] = list,
    ) -> None:
        """`failed(sink's name, error)` is called when a sink loses a message; the other sinks still receive it.

        `worked(sink's name)` is called when a sink accepts one. A message that can't be encoded, for example
        because the model returned NaN, is reported under the name `wire`. `record(numbered messages)` stores them
        and returns them as they are to be sent, so that nobody receives what a crash could undo.
        """
        self._numberer = numberer
        self._sinks = list(sinks)
        self._failed = failed
        self._worked = worked
        self._record = record
        self._had_sinks = bool(sinks)

    @property
    def names(self) -> list[str]:
        """Names of the remaining sinks."""
        return [sink.name for sink in self._sinks]

    @property
    def all_gone(self) -> bool:
        """Whether there were sinks and none remains, so that messages reach nobody."""
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
        """Poll every sink; together they wait at most `timeout_s` seconds."""
        share_s = timeout_s / max(len(self._sinks), 1)
        for sink in tuple(self._sinks):
            self._tried(sink, partial(sink.poll, share_s))

    def reopen(self) -> None:
        """Reopen every sink."""
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
