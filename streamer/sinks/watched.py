"""What becomes of the connections to a listening socket, by the events that ZeroMQ's monitor tells."""

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
"""What of a socket is followed: without MONITOR_STOPPED, for whose reader ZeroMQ would wait."""
_CRYPTOGRAPHIC, _MECHANISM_MISMATCH = 0x11000001, 0x11000002
"""Of HANDSHAKE_FAILED_PROTOCOL: zmq.h, ZMQ_PROTOCOL_ERROR_ZMTP_...; pyzmq has no names for them."""
MAPPED = "::ffff:"
"""What stands before an IPv4 address at a socket for both."""


@dataclass(slots=True)
class Watched:
    """One socket's connections, followed by the events that ZeroMQ tells of it."""

    monitor: zmq.Socket[bytes]
    endpoint: str
    keyed: bool
    pending: dict[int, str] = field(default_factory=dict)  # descriptor -> address, of those in their handshake
    inside: dict[int, str] = field(default_factory=dict)
    failed: str | None = None  # why the connection of which the next event tells has failed; "": counted already

    def push(self, event: int, value: int) -> tuple[str, str, str] | None:
        """Take in an event; gives reason, endpoint and peer if somebody was refused."""
        if event == zmq.EVENT_ACCEPTED:
            self.pending[value] = _peer(value)
        elif event == zmq.EVENT_ACCEPT_FAILED:
            return ("no_descriptors" if value in (errno.EMFILE, errno.ENFILE) else "closed"), self.endpoint, ""
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._let_in()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.failed = ""  # by us, who have counted it
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self.failed = "timeout" if value == errno.EAGAIN else "closed"
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            mismatch = "no_key" if self.keyed else "unwanted_key"
            self.failed = {_CRYPTOGRAPHIC: "wrong_server_key", _MECHANISM_MISMATCH: mismatch}.get(value, "other")
        elif event == zmq.EVENT_DISCONNECTED:
            failed, self.failed = self.failed, None
            was_inside = self.inside.pop(value, None)
            peer = self.pending.pop(value, None)
            if failed is not None and was_inside is not None:
                self._let_in()  # it was another one that had succeeded
            if failed is None and peer is not None:
                failed = "not_zeromq"  # ZeroMQ gave up before there was a handshake that could fail
            if failed:
                return failed, self.endpoint, peer or was_inside or ""
        return None

    def _let_in(self) -> None:
        """One of the pending has come in: which, ZeroMQ does not tell. A handshake is short, so it was the newest."""
        if self.pending:
            descriptor, peer = self.pending.popitem()
            self.inside[descriptor] = peer


def _peer(descriptor: int) -> str:
    """The address at the other end of a connection of ZeroMQ's; "" if it is gone, as after a port scan."""
    try:
        copy = os.dup(descriptor)  # the original may be closed and taken by another connection at any time
    except OSError:
        return ""
    try:
        with socket.socket(fileno=copy) as there:
            copy = -1
            name = there.getpeername()
    except OSError:
        if copy != -1:
            os.close(copy)
        return ""
    return str(name[0]).removeprefix(MAPPED) if isinstance(name, tuple) else "a program on this machine"
