"""The blocking subscriber."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

import zmq

from streamer.client.subscription import Subscription
from streamer.sinks.wire import Message


class Subscriber(Subscription):
    """An iterator over the messages of a `Subscription`. Not thread-safe."""

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None if none arrived within `timeout_s` seconds (None: wait without limit).

        Raises:
            WireError: the received data is not a message, or has a newer schema.
            HeartbeatLostError: a publisher has fallen silent, and `on_lost` is not set.
            RefusedError: a daemon refused the connection. You can receive on: it is retried every few seconds.

        """
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._feed.take()
            if message is not None:
                return message
            if not self._feed.read():
                wait_s = min(deadline_s, self._feed.next_s()) - time.monotonic()
                if wait_s > 0:
                    self._wait(wait_s)
            self._report()
            if time.monotonic() >= deadline_s:
                return self._feed.take()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        message = self.receive(self._timeout_s)
        if message is None:
            raise StopIteration
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, wait_s: float) -> None:
        poller = zmq.Poller()
        for socket in self._feed.sockets:
            poller.register(socket, zmq.POLLIN)
        poller.poll(None if wait_s == math.inf else math.ceil(wait_s * 1000))
