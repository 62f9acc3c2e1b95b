"""The current state, kept for late subscribers: every stream's status and the open events."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from streamer.sinks.wire import HeartbeatMessage, Message, OffsetMessage, OnsetMessage, StatusMessage, topic


class Snapshot:
    """Receives all published messages, and keeps the current status or open onset of each topic.

    It holds at most one status per stream and one onset per stream and class, even if offsets never arrive:
    the next onset of the class replaces it, and a new epoch discards all onsets of its stream.
    """

    def __init__(self) -> None:
        self._held: dict[str, StatusMessage | OnsetMessage | HeartbeatMessage] = {}  # by topic
        self._store = ""
        self._through = 0

    def push(self, message: Message) -> None:
        """Update the state with a message that has been published."""
        if message.stored_seq:
            self._store, self._through = message.store, message.stored_seq
        if isinstance(message, OffsetMessage):
            onset = self._held.get(topic(message))
            if isinstance(onset, OnsetMessage) and onset.event_id == message.event_id:
                del self._held[topic(message)]
        elif isinstance(message, StatusMessage) and message.state == "stopped":
            self._held.pop(topic(message), None)  # the stream is no more
        elif isinstance(message, (StatusMessage, OnsetMessage)):
            self._forget_before(message.stream, message.epoch)
            self._held[topic(message)] = message
        elif isinstance(message, HeartbeatMessage):
            self._held[topic(message)] = message
            self._store, self._through = message.store, message.stored_through

    def matching(self, prefixes: Collection[str]) -> list[StatusMessage | OnsetMessage | HeartbeatMessage]:
        """The held messages in topics that begin with one of `prefixes`, in publishing order, marked `replay`.

        A heartbeat says up to which number messages were sent until now, not until it was sent first: whoever joins
        has to know where what is live begins.
        """
        held = [message for its_topic, message in self._held.items() if its_topic.startswith(tuple(prefixes))]
        held.sort(key=lambda message: message.seq)
        return [self._again(message) for message in held]

    def _again(
        self, message: StatusMessage | OnsetMessage | HeartbeatMessage
    ) -> StatusMessage | OnsetMessage | HeartbeatMessage:
        if isinstance(message, HeartbeatMessage):
            return msgspec.structs.replace(message, replay=True, store=self._store, stored_through=self._through)
        return msgspec.structs.replace(message, replay=True)

    def _forget_before(self, stream: str, epoch: int) -> None:
        past = [
            its_topic
            for its_topic, message in self._held.items()
            if isinstance(message, OnsetMessage) and message.stream == stream and message.epoch < epoch
        ]
        for its_topic in past:
            del self._held[its_topic]
