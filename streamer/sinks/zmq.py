"""Messages over ZeroMQ: an XPUB socket to which SUB sockets in any language connect."""

from __future__ import annotations

import zmq

from streamer.errors import SinkError
from streamer.sinks.access import Access
from streamer.sinks.door import Door
from streamer.sinks.snapshot import Snapshot
from streamer.sinks.wire import Message, encode, topic

_LONGEST_PREFIX = 4096
"""Bytes of a subscription. No topic is longer, and ZeroMQ disconnects a subscriber that sends more."""
_SUBSCRIPTIONS_A_POLL = 1000


class ZmqSink:
    """Publishes each message as two ZeroMQ parts, topic and JSON.

    Every subscriber has its own queue of at most `queue_messages`. When the queue is full, only that subscriber
    misses messages; it detects this from `seq`. ZeroMQ does not report how many messages were missed, only that
    the queue was full: `overflows` counts that.

    A new subscription is answered with the current statuses and open events that match it. ZeroMQ can't
    address one subscriber, so other matching subscribers receive them too, marked `replay` and with unchanged `seq`.
    """

    name = "zmq"

    def __init__(self, endpoint: str, queue_messages: int = 10_000, access: Access | None = None) -> None:
        """Bind to `endpoint`, `tcp://HOST:PORT` or `ipc://PATH`; with port 0 the system chooses one.

        `access` decides who may subscribe; without it every local program may.

        Raises:
            SinkError: the endpoint is malformed, in use or can't be bound, or reaches beyond this machine without keys.

        """
        options = (
            (zmq.XPUB_VERBOSE, 1),  # else a second subscription to a topic would not be seen
            (zmq.SNDHWM, queue_messages),
            (zmq.RCVHWM, _SUBSCRIPTIONS_A_POLL),
            (zmq.MAXMSGSIZE, _LONGEST_PREFIX),
        )
        self._snapshot = Snapshot()
        self._door = Door(endpoint, zmq.XPUB, access or Access(), options)
        self._socket = self._door.socket
        self.endpoint: str = self._door.endpoint
        """Where subscribers connect to, with the port that was chosen."""
        self.refused = self._door.access.refusals.counts
        """Refused connections by reason."""
        self.overflows = 0
        """How often the queue of a subscriber has run full."""

    def send(self, message: Message) -> None:
        """Send to all matching subscribers; never waits.

        Raises:
            SinkError: the socket is broken, or new subscribers can't connect.

        """
        try:
            self._door.keep()  # first, so that a revoked subscriber does not receive this message
        finally:  # subscribers that are already connected receive it even if new ones can't connect
            self._answer(0.0)  # new subscribers receive the earlier state before this message
            self._snapshot.push(message)
            self._send(message)

    def poll(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` seconds for new subscriptions and send them the state. Raises `SinkError`."""
        self._door.keep()
        self._answer(timeout_s)

    def reopen(self) -> None:
        """Recreate an ipc endpoint's file if it was removed, and reread the allow-list. Raises `SinkError`."""
        self._door.reopen()

    def close(self) -> None:
        """Send queued messages for at most 2 s, then close."""
        self._door.close()

    def _answer(self, timeout_s: float) -> None:
        """Read new subscriptions and send them the current state."""
        prefixes = set()
        try:
            if self._socket.poll(round(timeout_s * 1000), zmq.POLLIN):
                for _ in range(_SUBSCRIPTIONS_A_POLL):
                    request = self._socket.recv(zmq.DONTWAIT)
                    if request[:1] == b"\x01":
                        prefixes.add(request[1:].decode(errors="replace"))
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise SinkError(f"{self.endpoint}: {error.strerror}") from None
        for message in self._snapshot.matching(prefixes):
            self._send(message)

    def _send(self, message: Message) -> None:
        """Send, and count an overflow if a subscriber's queue is full and it misses the message."""
        frames = (topic(message).encode(), encode(message))
        try:
            try:
                # With NODROP, a full queue refuses the message for all: the only way to notice one.
                self._socket.set(zmq.XPUB_NODROP, 1)
                self._socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                self._socket.set(zmq.XPUB_NODROP, 0)
                self._socket.send_multipart(frames, zmq.DONTWAIT)
                self.overflows += 1
        except zmq.ZMQError as error:
            raise SinkError(f"{self.endpoint}: {error.strerror}") from None
