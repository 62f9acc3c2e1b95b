"""Messages over ZeroMQ: an XPUB socket to which SUB sockets in any language connect."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import zmq

from streamer.errors import SinkError
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.snapshot import Snapshot
from streamer.sinks.wire import Message, encode, topic

log = logging.getLogger(__name__)

_LINGER_S = 2.0
"""How long `close` waits for subscribers to receive what is queued for them."""
_LONGEST_PREFIX = 4096
"""Bytes of a subscription. No topic is longer, and ZeroMQ disconnects a subscriber that sends more."""
_SUBSCRIPTIONS_A_POLL = 1000
_TRIES = 5
"""Attempts to find a port that is free on all addresses of a name."""
_TCP = re.compile(r"tcp://(?P<host>[^/\s]+):(?P<port>\d+|\*)")


class ZmqSink:
    """Publishes each message as two ZeroMQ parts, topic and JSON.

    Every subscriber has its own queue of at most `queue_messages`. When the queue is full, only that subscriber
    misses messages; it detects this from `seq`. ZeroMQ does not report how many messages were missed, only that
    the queue was full: `overflows` counts that.

    A new subscription is answered with the current statuses and open events that match it. ZeroMQ can't
    address one subscriber, so other matching subscribers receive them too, marked `replay` and with unchanged `seq`.
    """

    name = "zmq"

    def __init__(self, endpoint: str, queue_messages: int = 10_000) -> None:
        """Bind to `endpoint`, `tcp://HOST:PORT` or `ipc://PATH`; with port 0 the system chooses one.

        Raises:
            SinkError: the endpoint is malformed, reaches beyond this machine, is in use or can't be bound.

        """
        addresses = _local(endpoint)
        self._snapshot = Snapshot()
        self._context = zmq.Context()  # its own, because `term` waits for queued messages
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.XPUB_VERBOSE, 1)  # or later subscriptions to a topic are not reported
        self._socket.set(zmq.SNDHWM, queue_messages)
        self._socket.set(zmq.RCVHWM, _SUBSCRIPTIONS_A_POLL)
        self._socket.set(zmq.MAXMSGSIZE, _LONGEST_PREFIX)
        self._socket.set(zmq.LINGER, round(_LINGER_S * 1000))
        try:
            self.endpoint: str = self._bind(addresses)
            """Where subscribers connect, with the port that the system chose."""
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise SinkError(_why_not(endpoint, error)) from None
        path = self.endpoint.removeprefix("ipc://") if self.endpoint.startswith("ipc://") else "@"
        self._path = None if path.startswith("@") else path  # None: no file that could be removed
        self.overflows = 0
        """How often a subscriber's queue has run full."""
        self._bound = self._there()

    def send(self, message: Message) -> None:
        """Send to all matching subscribers; never waits.

        Raises:
            SinkError: the socket is broken, or an ipc endpoint's file was removed and can't be recreated, so that new
                subscribers can't connect.

        """
        self._answer(0.0)  # new subscribers receive the earlier state before this message
        self._snapshot.push(message)
        self._send(message)
        if self._path is not None and self._there() != self._bound:
            self.reopen()

    def poll(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` seconds for new subscriptions and send them the state. Raises `SinkError`."""
        self._answer(timeout_s)

    def reopen(self) -> None:
        """Recreate an ipc endpoint's file if it was removed; existing connections stay. Raises `SinkError`."""
        if self._path is None or self._there() == self._bound:
            return
        try:
            _check_path(self.endpoint, self._path)
            self._socket.bind(self.endpoint)
        except (SinkError, zmq.ZMQError) as error:
            why = _why_not(self.endpoint, error) if isinstance(error, zmq.ZMQError) else str(error)
            raise SinkError(f"new subscribers can't connect: the endpoint's file was removed; {why}") from None
        self._bound = self._there()
        log.warning("%s: the endpoint's file was removed; recreated it", self.endpoint)

    def close(self) -> None:
        """Send queued messages for at most 2 s, then close."""
        if not self._socket.closed:
            self._socket.close()
            self._context.term()

    def _bind(self, addresses: Sequence[str]) -> str:
        """Bind to all of `addresses`, which differ only in their host; returns the first, with its port."""
        for last in (False,) * _TRIES + (True,):
            bound: list[str] = []
            try:
                for address in addresses:
                    self._socket.set(zmq.IPV6, address.startswith("tcp://["))
                    # The port that the system chose for the first address is used for the others.
                    host, _, port = address.rpartition(":")
                    self._socket.bind(f"{host}:{bound[0].rpartition(':')[2] if bound else port}")
                    bound.append(self._socket.get_string(zmq.LAST_ENDPOINT))
                return bound[0]
            except zmq.ZMQError as error:
                chosen = addresses[0].endswith((":0", ":*"))
                if last or not bound or not chosen or error.errno != errno.EADDRINUSE:
                    raise
                for one in bound:
                    self._socket.unbind(one)
        raise AssertionError

    def _there(self) -> tuple[int, int] | None:
        """Device and inode of the file at an ipc endpoint's path; None if there is none."""
        try:
            found = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None

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


def _local(endpoint: str) -> list[str]:
    """The addresses to bind for `endpoint`. Raises `SinkError` unless they are local and binding replaces no file."""
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        _check_path(endpoint, endpoint.removeprefix("ipc://"))
        return [endpoint]
    match = _TCP.fullmatch(endpoint)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65_535):
        raise SinkError(f"{endpoint!r} is not a valid endpoint; use tcp://127.0.0.1:PORT or ipc://PATH")
    host, port = match["host"], match["port"]
    addresses = loopback_addresses(host)
    if not addresses:
        raise SinkError(
            f"{endpoint}: publishing beyond this machine needs CURVE keys, which this version does not support yet; "
            f"use tcp://127.0.0.1:{port} and a tunnel (e.g. ssh -L)"
        )
    return [f"tcp://[{one}]:{port}" if ":" in one else f"tcp://{one}:{port}" for one in addresses]


def _check_path(endpoint: str, path: str) -> None:
    """Raises `SinkError` if `path` is in use or holds another file: ZeroMQ would silently replace it."""
    if path.startswith("@") or path == "*":
        return  # an abstract name, or a path that ZeroMQ chooses
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise SinkError(f"{endpoint}: the file there is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except OSError:
            return  # left behind by a program that has ended
    raise SinkError(
        f"{endpoint} is in use; stop the program that uses it (another earwitness?), or choose another path"
    )


def _why_not(endpoint: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{endpoint} is in use; stop the program that uses it (another earwitness?), or choose another port"
    if error.errno == errno.EACCES:
        return f"{endpoint}: permission denied; choose a port above 1023, or a folder that you may write to"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{endpoint}: no such folder; create it, or choose another path"
    return f"{endpoint}: {error.strerror}"
