"""Receives a daemon's messages in another program.

>>> with Subscriber("tcp://127.0.0.1:5557", ["event/"]) as messages:
...     for message in messages:
...         print(message.label, message.onset_utc)
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import zmq

from streamer.errors import HeartbeatLostError, RefusedError, UsageError, WireError
from streamer.sinks.handshake import Handshake
from streamer.sinks.keys import ClientKey
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.wire import Head, HeartbeatMessage, Message, UnknownTypeError, decode

_HEARTBEAT = "heartbeat/"
_TRY_AGAIN_S = 5.0
"""How long after a refusal; a key may be put on the list again."""
_RUNS = 64
"""Publisher runs that are tracked at a time; beyond this, the one that was silent longest is dropped."""


class Subscriber:
    """An iterator over the messages of one or more daemons, in the order of sending. Not thread-safe.

    ZeroMQ connects and reconnects automatically. The current statuses and open events arrive first, each once; replays
    for other subscribers are skipped. `missed` counts messages that were lost because this program was too slow or
    the connection broke.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        topics: str | Sequence[str] = ("",),
        *,
        timeout_s: float | None = None,
        lost_after_s: float | None = None,
        on_lost: Callable[[HeartbeatLostError], None] | None = None,
        queue_messages: int = 10_000,
        key: ClientKey | str | Path | None = None,
    ) -> None:
        """Subscribe to the topics that begin with one of `topics` (docs/messages.md); `""` matches all.

        Iteration ends when no message arrives for `timeout_s` seconds; None: it never ends. If a publisher is silent
        for `lost_after_s` seconds (at least twice its heartbeat interval), or no publisher is heard at the start,
        `on_lost` is called once; without `on_lost`, `HeartbeatLostError` is raised. Receiving can continue after it.
        At most `queue_messages` are queued here and some more in the daemon; messages beyond that are missed.
        `key` is the file that `earwitness keys new` made, or what is in it; a daemon on another machine wants one.

        Raises:
            UsageError: an endpoint is invalid.
            KeysError: the key file can't be used.

        """
        if isinstance(key, str | Path):
            key = ClientKey.load(key)
        self._endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        self._topics = (topics,) if isinstance(topics, str) else tuple(topics)
        self._timeout_s = timeout_s
        self._lost_after_s = lost_after_s
        self._on_lost = on_lost
        self._order = _Order(everything="" in self._topics)
        self._heard_s: dict[str, float] = {}  # publisher -> monotonic
        self._interval_s: dict[str, float] = {}
        self._begun_s = time.monotonic()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.RCVHWM, queue_messages)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.IPV6, 1)
        # A peer whose machine or network fails does not close the connection: keepalive detects it, and ZeroMQ
        # reconnects.
        self._socket.set(zmq.TCP_KEEPALIVE, 1)
        self._socket.set(zmq.TCP_KEEPALIVE_IDLE, 10)
        self._socket.set(zmq.TCP_KEEPALIVE_INTVL, 5)
        self._socket.set(zmq.TCP_KEEPALIVE_CNT, 3)
        self._socket.set(zmq.RECONNECT_IVL, 100)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 500)
        self._handshake = Handshake(self._socket, key)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._handshake.monitor, zmq.POLLIN)
        watched = () if lost_after_s is None else (_HEARTBEAT,)
        for prefix in {*self._topics, *watched}:
            self._socket.subscribe(prefix)
        self._addresses: list[str] = []
        self._try_again_s = math.inf
        for endpoint in self._endpoints:
            try:
                for address in _addresses(endpoint):
                    self._socket.connect(address)
                    self._addresses.append(address)
            except zmq.ZMQError:
                self.close()
                raise UsageError(
                    f"{endpoint!r} is not an endpoint to subscribe to; use tcp://HOST:PORT or ipc://PATH"
                ) from None

    @property
    def missed(self) -> Mapping[str, int]:
        """Number of messages in the subscribed topics that were sent but never received, by publisher.

        Without a subscription to everything, messages lost before the first one of their topic are not counted.
        """
        return MappingProxyType(self._order.missed)

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None if none arrived within `timeout_s` seconds (None: wait without limit).

        Raises:
            WireError: the received data is not a message, or has a newer schema.
            HeartbeatLostError: a publisher has fallen silent, and `on_lost` is not set.
            RefusedError: a daemon does not let us in. Receiving can continue: it is tried again every few seconds.

        """
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if time.monotonic() >= self._try_again_s:
                self._handshake.try_again(self._addresses)
                self._try_again_s = math.inf
            wait_s = max(0.0, min(deadline_s, self._next_loss_s(), self._try_again_s) - time.monotonic())
            ready = dict(self._poller.poll(None if wait_s == math.inf else math.ceil(wait_s * 1000)))
            refusal = self._handshake.refusal() if self._handshake.monitor in ready else ""
            if refusal:
                self._try_again_s = time.monotonic() + _TRY_AGAIN_S
                raise RefusedError(f"{', '.join(self._endpoints)}: {refusal}")
            if self._socket in ready:
                message = self._take(self._socket.recv_multipart())
                if message is not None:
                    return message
            elif not ready:
                # Only when no message is queued: a caller that was busy for long has not lost the publisher.
                self._check_heartbeats()
            if time.monotonic() >= deadline_s:
                return None

    def close(self) -> None:
        """Disconnect. A second call has no effect."""
        if not self._context.closed:
            self._handshake.close()
            self._context.destroy(linger=0)

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

    def _take(self, parts: list[bytes]) -> Message | None:
        """The received message, if it is new and was subscribed to."""
        if len(parts) != 2:
            raise WireError(f"not a message: {len(parts)} parts instead of 2; is this the endpoint of an earwitness?")
        topic = parts[0].decode(errors="replace")
        message: Message | None = None
        head: Message | Head
        try:
            head = message = decode(parts[1])
        except UnknownTypeError as error:
            head = error.head
        self._heard_s[head.publisher] = time.monotonic()
        if isinstance(message, HeartbeatMessage):
            self._interval_s[head.publisher] = message.interval_s
        if not topic.startswith(self._topics) or not self._order.push(topic, head):
            return None
        return message

    def _next_loss_s(self) -> float:
        """Monotonic time at which the next publisher counts as lost."""
        if self._lost_after_s is None:
            return math.inf
        if not self._heard_s:
            return self._begun_s + self._lost_after_s
        return min(heard_s + self._patience_s(publisher) for publisher, heard_s in self._heard_s.items())

    def _patience_s(self, publisher: str) -> float:
        return max(self._lost_after_s or 0.0, 2 * self._interval_s.get(publisher, 0.0))

    def _check_heartbeats(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_loss_s():
            return
        if not self._heard_s:
            silent_s, self._begun_s = now_s - self._begun_s, now_s
            self._lost(None, f"{', '.join(self._endpoints)}: nothing heard for {silent_s:.0f} s; is a daemon running?")
            return
        for publisher, heard_s in list(self._heard_s.items()):
            if now_s >= heard_s + self._patience_s(publisher):
                del self._heard_s[publisher]  # until it is heard again
                self._begun_s = now_s
                self._lost(
                    publisher, f"publisher {publisher}: silent for {now_s - heard_s:.0f} s; is it still running?"
                )

    def _lost(self, publisher: str | None, text: str) -> None:
        error = HeartbeatLostError(publisher, text)
        if self._on_lost is None:
            raise error
        self._on_lost(error)


def _addresses(endpoint: str) -> list[str]:
    """All addresses of `endpoint`: ZeroMQ tries only the first address of a name, and may wait there forever.

    `_Order` skips messages that arrive over two of them. Names of other machines are left to ZeroMQ, which resolves
    them again at each connection.
    """
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "tcp" or not host:
        return [endpoint]
    found = loopback_addresses(host)
    return [f"tcp://[{one}]:{port}" if ":" in one else f"tcp://{one}:{port}" for one in found] or [endpoint]


class _Order:
    """Detects duplicates and counts missed messages by their numbers. Does no I/O."""

    def __init__(self, *, everything: bool) -> None:
        """`everything`: all topics are subscribed to, so every gap in `seq` is a loss."""
        self.missed: Counter[str] = Counter()
        self._everything = everything
        self._runs: dict[tuple[str, str], _Run] = {}  # the most recently heard one is last

    def push(self, topic: str, message: Message | Head) -> bool:
        """Record a message; returns whether it is new."""
        key = (message.publisher, message.run)
        run = self._runs.pop(key, None) or _Run()
        self._runs[key] = run
        if len(self._runs) > _RUNS:
            del self._runs[next(iter(self._runs))]
        before = run.topics.get(topic, 0)
        if message.topic_seq <= before:
            return False
        run.topics[topic] = message.topic_seq
        lost = 0
        if not self._everything:
            lost = message.topic_seq - before - 1 if before else 0
        elif message.replay:
            run.recovered += bool(run.seq) and message.seq > run.seq
        else:
            # Below 0 if one publisher is received over two endpoints, and one is ahead.
            lost = max(0, message.seq - run.seq - 1 - run.recovered) if run.seq else 0
            run.seq, run.recovered = max(run.seq, message.seq), 0
        if lost:
            self.missed[message.publisher] += lost
        return True


class _Run:
    """What was received of one run of a publisher."""

    def __init__(self) -> None:
        self.seq = 0  # of the newest message that was not a replay; 0: none yet
        self.recovered = 0  # number of newer ones that were received as replays
        self.topics: dict[str, int] = {}  # topic -> its newest `topic_seq`
