"""Tracks the connections to a listening socket by the events of its ZeroMQ monitor."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field

import zmq

EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
"""The monitored events. MONITOR_STOPPED is left out: closing the socket would wait until it is read."""
_CRYPTOGRAPHIC, _MECHANISM_MISMATCH = 0x11000001, 0x11000002
"""Of HANDSHAKE_FAILED_PROTOCOL: zmq.h, ZMQ_PROTOCOL_ERROR_ZMTP_...; pyzmq has no names for them."""
MAPPED = "::ffff:"
"""Prefix of IPv4 addresses on a dual-stack socket."""


@dataclass(slots=True)
class Watched:
    """The connections to one socket."""

    monitor: zmq.Socket[bytes]
    endpoint: str
    keyed: bool
    pending: dict[int, str] = field(default_factory=dict)  # descriptor -> address, during the handshake
    established: dict[int, str] = field(default_factory=dict)  # after it
    failed: str | None = None  # why the connection that is closed next has failed; "": already counted

    def push(self, event: int, value: int) -> tuple[str, str, str] | None:
        """Process an event; returns reason, endpoint and peer if a connection was refused."""
        if event == zmq.EVENT_ACCEPTED:
            self.pending[value] = _peer(value)
        elif event == zmq.EVENT_ACCEPT_FAILED:
            return ("no_descriptors" if value in (errno.EMFILE, errno.ENFILE) else "closed"), self.endpoint, ""
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._establish()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.failed = ""  # counted where we refused it
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self.failed = "timeout" if value == errno.EAGAIN else "closed"
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            mismatch = "no_key" if self.keyed else "unwanted_key"
            self.failed = {_CRYPTOGRAPHIC: "wrong_server_key", _MECHANISM_MISMATCH: mismatch}.get(value, "other")
        elif event == zmq.EVENT_DISCONNECTED:
            failed, self.failed = self.failed, None
            was_established = self.established.pop(value, None)
            peer = self.pending.pop(value, None)
            if failed is not None and was_established is not None:
                self._establish()  # the handshake that succeeded was another one's
            if failed is None and peer is not None:
                failed = "not_zeromq"  # ZeroMQ closed it before the handshake
            if failed:
                return failed, self.endpoint, peer or was_established or ""
        return None

    def _establish(self) -> None:
        """A handshake succeeded. ZeroMQ does not say which: they are short, so we assume the newest connection's."""
        if self.pending:
            descriptor, peer = self.pending.popitem()
            self.established[descriptor] = peer


def _peer(descriptor: int) -> str:
    """The peer's address of one of ZeroMQ's connections; "" if it is already closed, as after a port scan."""
    try:
        copy = os.dup(descriptor)  # ZeroMQ may close the original, and its number be reused, at any time
    except OSError:
        return ""
    try:
        with socket.socket(fileno=copy) as duplicate:
            copy = -1
            name = duplicate.getpeername()
    except OSError:
        if copy != -1:
            os.close(copy)
        return ""
    return str(name[0]).removeprefix(MAPPED) if isinstance(name, tuple) else "a local program"
