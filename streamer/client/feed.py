"""The sockets of a subscriber: one per endpoint for what is live, and one per daemon that was asked for more."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from streamer.client.inbox import STORED_TOPICS, Inbox, Question
from streamer.client.pulse import Pulse
from streamer.errors import EarwitnessError, GapError, HeartbeatLostError, RefusedError, UsageError
from streamer.sinks.handshake import Handshake
from streamer.sinks.keys import ClientKey
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.wire import Message

log = logging.getLogger(__name__)

_HEARTBEAT = "heartbeat/"
_REFUSED_AGAIN_S = 5.0
"""How long after a refusal a connection is retried: the key may have been allowed in the meantime."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a subscriber asked for; see `Subscriber`."""

    endpoints: Sequence[str]
    topics: Sequence[str]
    lost_after_s: float | None
    queue_messages: int
    key: ClientKey | str | Path | None
    since: int | Mapping[str, int] | None
    catch_up: bool | str
    patience_s: float


@dataclass(slots=True)
class _Live:
    """The socket of one endpoint."""

    endpoint: str
    socket: zmq.Socket[bytes]
    handshake: Handshake
    addresses: list[str] = field(default_factory=list)
    try_again_s: float = math.inf


class Feed:
    """Reads sockets into an `Inbox`. Never waits: its owner waits for `sockets`, at most until `next_s()`."""

    def __init__(self, wishes: Wishes) -> None:
        """Connect. Raises `UsageError` if an endpoint is invalid, `KeysError` if the key can't be used."""
        self._key = ClientKey.load(wishes.key) if isinstance(wishes.key, str | Path) else wishes.key
        self._wishes = wishes
        catch_up = bool(wishes.catch_up)
        self.inbox = Inbox(wishes.topics, wishes.since, catch_up=catch_up, patience_s=wishes.patience_s)
        self._pulse = Pulse(", ".join(wishes.endpoints), wishes.lost_after_s, time.monotonic())
        self._errors: deque[EarwitnessError] = deque()
        self._context = zmq.Context()
        self._asked: dict[tuple[int, str], tuple[zmq.Socket[bytes], Handshake]] = {}
        self.live: list[_Live] = []
        watched = () if wishes.lost_after_s is None and not self.inbox.catches_up else (_HEARTBEAT,)
        prefixes = {*wishes.topics, *watched, *(STORED_TOPICS if self.inbox.catches_up else ())}
        for endpoint in wishes.endpoints:
            try:
                self._listen(endpoint, prefixes)
            except zmq.ZMQError:
                self.close()
                raise UsageError(
                    f"{endpoint!r} is not an endpoint to subscribe to; use tcp://HOST:PORT or ipc://PATH"
                ) from None

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """All that may have something to read."""
        live = [socket for one in self.live for socket in (one.socket, one.handshake.monitor)]
        return [*live, *(socket for socket, _ in self._asked.values())]

    def next_s(self) -> float:
        """When to `read` although nothing has arrived, in monotonic seconds."""
        return min(self._pulse.next_s(), self.inbox.next_s(), *(one.try_again_s for one in self.live))

    def read(self) -> bool:
        """Take in one message of each socket that has one, and ask what is to be asked; whether there was any.

        Raises:
            WireError: the received data is not a message, or has a newer schema.

        """
        now_s, found = time.monotonic(), False
        for source, one in enumerate(self.live):
            if one.handshake.monitor.poll(0):
                found = True
                self._shake(one, now_s)
            if now_s >= one.try_again_s:
                one.handshake.try_again(one.addresses)
                one.try_again_s = math.inf
            if one.socket.poll(0):
                found = True
                self._pulse.push(self.inbox.push(source, one.socket.recv_multipart(), now_s), now_s)
        for socket, _ in list(self._asked.values()):
            if socket.poll(0):
                found = True
                self.inbox.push_reply(socket.recv_multipart(), now_s)
        for question in self.inbox.questions(now_s):
            self._ask(question)
        if not found:
            # Only when no message is queued: a caller that was busy for long has not lost the publisher.
            self._errors.extend(self._pulse.lost(now_s))
        return found

    def take(self) -> Message | None:
        """The next message; None: there is none now."""
        return self.inbox.take()

    def trouble(self) -> EarwitnessError | None:
        """The next of what is to be told; None: nothing."""
        if self.inbox.gaps:
            return self.inbox.gaps.popleft()
        return self._errors.popleft() if self._errors else None

    def close(self) -> None:
        """Disconnect. A second call has no effect."""
        if not self._context.closed:
            for handshake in (*(one.handshake for one in self.live), *(shake for _, shake in self._asked.values())):
                handshake.close()
            self._context.destroy(linger=0)

    def _listen(self, endpoint: str, prefixes: set[str]) -> None:
        socket = self._context.socket(zmq.SUB)
        socket.set(zmq.RCVHWM, self._wishes.queue_messages)
        socket.set(zmq.RECONNECT_IVL, 100)
        socket.set(zmq.RECONNECT_IVL_MAX, 500)
        _keep_alive(socket)
        one = _Live(endpoint, socket, Handshake(socket, self._key))
        self.live.append(one)
        for prefix in prefixes:
            socket.subscribe(prefix)
        for address in addresses_of(endpoint):
            socket.connect(address)
            one.addresses.append(address)

    def _shake(self, one: _Live, now_s: float) -> None:
        refusal = one.handshake.refusal()
        if refusal:
            one.try_again_s = now_s + _REFUSED_AGAIN_S
            self._errors.append(RefusedError(f"{one.endpoint}: {refusal}"))

    def _ask(self, question: Question) -> None:
        """Send a question; over a new connection if the last one was not answered."""
        key = (question.source, question.catch_up)
        if question.again and key in self._asked:
            socket, handshake = self._asked.pop(key)
            handshake.close()
            socket.close(linger=0)
        if key not in self._asked:
            socket = self._context.socket(zmq.DEALER)
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 2)
            _keep_alive(socket)
            self._asked[key] = socket, Handshake(socket, self._key)
            override = self._wishes.catch_up
            where = override if isinstance(override, str) else self._wishes.endpoints[question.source]
            try:
                socket.connect(catch_up_endpoint(where, where if isinstance(override, str) else question.catch_up))
            except zmq.ZMQError:
                return  # what a broken daemon says is no endpoint; it counts as one that does not answer
        try:
            self._asked[key][0].send(question.data, zmq.DONTWAIT)
        except zmq.Again:
            return


def _keep_alive(socket: zmq.Socket[Any]) -> None:
    """A peer whose machine or network fails does not close the connection: keepalive detects it."""
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.IPV6, 1)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.set(zmq.TCP_KEEPALIVE_CNT, 3)


def addresses_of(endpoint: str) -> list[str]:
    """All addresses of `endpoint`: ZeroMQ tries only the first address of a name, and may wait there forever.

    Messages that arrive over two of them are passed on once. Names of other machines are left to ZeroMQ, which resolves
    them again at each connection.
    """
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "tcp" or not host:
        return [endpoint]
    found = loopback_addresses(host)
    return [f"tcp://[{one}]:{port}" if ":" in one else f"tcp://{one}:{port}" for one in found] or [endpoint]


def catch_up_endpoint(endpoint: str, said: str) -> str:
    """Where to ask a daemon that is heard over `endpoint` and says that it answers at `said`.

    The daemon knows its port, but not by which name or address it is reached from here.
    """
    if not (endpoint.startswith("tcp://") and said.startswith("tcp://")):
        return said
    host, port = said.removeprefix("tcp://").rpartition(":")[::2]
    here = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return said if loopback_addresses(host) and loopback_addresses(here) else f"tcp://{here}:{port}"


def tell(
    error: EarwitnessError,
    on_lost: Callable[[HeartbeatLostError], None] | None,
    on_gap: Callable[[GapError], None] | None,
) -> None:
    """Tell who wants to hear of it; else log a gap, and raise the rest."""
    if isinstance(error, GapError):
        if on_gap is None:
            log.warning("%s", error)
        else:
            on_gap(error)
    elif isinstance(error, HeartbeatLostError) and on_lost is not None:
        on_lost(error)
    else:
        raise error
