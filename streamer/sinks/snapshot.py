"""The current state, kept for late subscribers: every stream's status and the open events."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from streamer.sinks.wire import Message, OffsetMessage, OnsetMessage, StatusMessage, topic


class Snapshot:
    """Receives all published messages, and keeps the current status or open onset of each topic.

    It holds at most one status per stream and one onset per stream and class, even if offsets never arrive:
    the next onset of the class replaces it, and a new epoch discards all onsets of its stream.
    """

    def __init__(self) -> None:
        self._held: dict[str, StatusMessage | OnsetMessage] = {}  # by topic

    def push(self, message: Message) -> None:
        """Update the state with a message that has been published."""
        if isinstance(message, OffsetMessage):
            onset = self._held.get(topic(message))
            if isinstance(onset, OnsetMessage) and onset.event_id == message.event_id:
                del self._held[topic(message)]
        elif isinstance(message, StatusMessage) and message.state == "stopped":
            self._held.pop(topic(message), None)  # the stream is no more
        elif isinstance(message, (StatusMessage, OnsetMessage)):
            self._forget_before(message.stream, message.epoch)
            self._held[topic(message)] = message

    def matching(self, prefixes: Collection[str]) -> list[StatusMessage | OnsetMessage]:
        """The held messages whose topics begin with one of `prefixes`, in publishing order, marked `replay`."""
        held = [message for its_topic, message in self._held.items() if its_topic.startswith(tuple(prefixes))]
        held.sort(key=lambda message: message.seq)
        return [msgspec.structs.replace(message, replay=True) for message in held]

    def _forget_before(self, stream: str, epoch: int) -> None:
        past = [
            its_topic
            for its_topic, message in self._held.items()
            if isinstance(message, OnsetMessage) and message.stream == stream and message.epoch < epoch
        ]
        for its_topic in past:
            del self._held[its_topic]
