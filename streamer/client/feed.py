"""A subscriber's sockets: one per endpoint for live messages, and one per daemon that it requests missed ones from."""

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

from streamer.client.inbox import STORED_TOPICS, Inbox, PendingRequest
from streamer.client.pulse import Pulse
from streamer.errors import EarwitnessError, GapError, HeartbeatLostError, RefusedError, UsageError
from streamer.sinks.handshake import Handshake
from streamer.sinks.keys import ClientKey
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.wire import Message

log = logging.getLogger(__name__)

_HEARTBEAT = "heartbeat/"
_RETRY_REFUSED_S = 5.0
"""How long after a refusal a connection is retried: the key may have been allowed in the meantime."""


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a `Subscription`, as described there."""

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
    """One endpoint and its socket for live messages."""

    endpoint: str
    socket: zmq.Socket[bytes]
    handshake: Handshake
    addresses: list[str] = field(default_factory=list)
    retry_s: float = math.inf


class Feed:
    """Reads sockets into an `Inbox`. It never blocks: its owner polls `sockets`, at most until `next_s()`."""

    def __init__(self, options: Options) -> None:
        """Connect. Raises `UsageError` if an endpoint is invalid, `KeysError` if the key can't be used."""
        self._key = ClientKey.load(options.key) if isinstance(options.key, str | Path) else options.key
        self._options = options
        catch_up = bool(options.catch_up)
        self.inbox = Inbox(options.topics, options.since, catch_up=catch_up, patience_s=options.patience_s)
        self._pulse = Pulse(", ".join(options.endpoints), options.lost_after_s, time.monotonic())
        self._errors: deque[EarwitnessError] = deque()
        self._context = zmq.Context()
        self._requesters: dict[tuple[int, str], tuple[zmq.Socket[bytes], Handshake]] = {}
        self.live: list[_Live] = []
        watched = () if options.lost_after_s is None and not self.inbox.catches_up else (_HEARTBEAT,)
        prefixes = {*options.topics, *watched, *(STORED_TOPICS if self.inbox.catches_up else ())}
        for endpoint in options.endpoints:
            try:
                self._listen(endpoint, prefixes)
            except zmq.ZMQError:
                self.close()
                raise UsageError(
                    f"{endpoint!r} is not an endpoint to subscribe to; use tcp://HOST:PORT or ipc://PATH"
                ) from None

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """All sockets to poll."""
        live = [socket for one in self.live for socket in (one.socket, one.handshake.monitor)]
        return [*live, *(socket for socket, _ in self._requesters.values())]

    def next_s(self) -> float:
        """When to call `read` even if nothing has arrived, in monotonic seconds."""
        return min(self._pulse.next_s(), self.inbox.next_s(), *(one.retry_s for one in self.live))

    def read(self) -> bool:
        """Read at most one message from each socket, and send the due requests; returns whether there was a message.

        Raises:
            WireError: the received data is not a message, or has a newer schema.

        """
        now_s, found = time.monotonic(), False
        for source, one in enumerate(self.live):
            if one.handshake.monitor.poll(0):
                found = True
                self._shake(one, now_s)
            if now_s >= one.retry_s:
                one.handshake.try_again(one.addresses)
                one.retry_s = math.inf
            if one.socket.poll(0):
                found = True
                self._pulse.push(self.inbox.push(source, one.socket.recv_multipart(), now_s), now_s)
        for socket, _ in list(self._requesters.values()):
            if socket.poll(0):
                found = True
                self.inbox.push_reply(socket.recv_multipart(), now_s)
        for request in self.inbox.requests(now_s):
            self._send_request(request)
        if not found:
            # Only when no message is queued: a caller that was busy for a while has not lost the publisher.
            self._errors.extend(self._pulse.lost(now_s))
        return found

    def take(self) -> Message | None:
        """The next message; None: there is none yet."""
        return self.inbox.take()

    def next_error(self) -> EarwitnessError | None:
        """The next error to report; None: there is none."""
        if self.inbox.gaps:
            return self.inbox.gaps.popleft()
        return self._errors.popleft() if self._errors else None

    def close(self) -> None:
        """Disconnect. A second call has no effect."""
        if not self._context.closed:
            for handshake in (
                *(one.handshake for one in self.live),
                *(shake for _, shake in self._requesters.values()),
            ):
                handshake.close()
            self._context.destroy(linger=0)

    def _listen(self, endpoint: str, prefixes: set[str]) -> None:
        socket = self._context.socket(zmq.SUB)
        socket.set(zmq.RCVHWM, self._options.queue_messages)
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
            one.retry_s = now_s + _RETRY_REFUSED_S
            self._errors.append(RefusedError(f"{one.endpoint}: {refusal}"))

    def _send_request(self, request: PendingRequest) -> None:
        """Send a request; over a new connection if the last one was not answered."""
        key = (request.source, request.catch_up)
        if request.retry and key in self._requesters:
            socket, handshake = self._requesters.pop(key)
            handshake.close()
            socket.close(linger=0)
        if key not in self._requesters:
            socket = self._context.socket(zmq.DEALER)
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 2)
            _keep_alive(socket)
            self._requesters[key] = socket, Handshake(socket, self._key)
            override = self._options.catch_up
            where = override if isinstance(override, str) else self._options.endpoints[request.source]
            try:
                socket.connect(catch_up_endpoint(where, where if isinstance(override, str) else request.catch_up))
            except zmq.ZMQError:
                return  # a broken daemon announces an invalid endpoint; it is treated as one that does not answer
        try:
            self._requesters[key][0].send(request.data, zmq.DONTWAIT)
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

    A message that arrives over two of them is delivered once. Names of other machines are left to ZeroMQ, which
    resolves them again for each connection.
    """
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "tcp" or not host:
        return [endpoint]
    found = loopback_addresses(host)
    return [f"tcp://[{one}]:{port}" if ":" in one else f"tcp://{one}:{port}" for one in found] or [endpoint]


def catch_up_endpoint(endpoint: str, announced: str) -> str:
    """The catch-up endpoint, as reached from here, of a daemon at `endpoint` that announces `announced`.

    The daemon knows its own port, but not the name or address under which this machine reaches it.
    """
    if not (endpoint.startswith("tcp://") and announced.startswith("tcp://")):
        return announced
    host, port = announced.removeprefix("tcp://").rpartition(":")[::2]
    here = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return announced if loopback_addresses(host) and loopback_addresses(here) else f"tcp://{here}:{port}"


def report(
    error: EarwitnessError,
    on_lost: Callable[[HeartbeatLostError], None] | None,
    on_gap: Callable[[GapError], None] | None,
) -> None:
    """Call the callback for the error; without one, log a gap and raise anything else."""
    if isinstance(error, GapError):
        if on_gap is None:
            log.warning("%s", error)
        else:
            on_gap(error)
    elif isinstance(error, HeartbeatLostError) and on_lost is not None:
        on_lost(error)
    else:
        raise error
