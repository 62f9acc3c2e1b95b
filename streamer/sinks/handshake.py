"""What becomes of a subscriber's attempts to connect: ZeroMQ tries on and says nothing, whatever is wrong."""

from __future__ import annotations

import struct

import zmq

from streamer.sinks.keys import ClientKey

_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_EVENTS = _FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED = "the daemon refuses this key: it is not on its list, or was revoked (see `earwitness keys list` there)"
_TRIES = 3
"""A handshake may break off once or twice because a daemon is starting or stopping."""


class Handshake:
    """A connecting socket's key, and why it is not let in. Used by the socket's thread."""

    def __init__(self, socket: zmq.Socket[bytes], key: ClientKey | None) -> None:
        """Set the key; before the socket connects."""
        self._keyed = key is not None
        self._broken_off = 0
        if key is not None:
            socket.set(zmq.CURVE_SERVERKEY, key.server_public.encode())
            socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
        self._socket = socket
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        """To be polled along with the socket."""

    def refusal(self) -> str:
        """Why the newest attempts failed and what to do, once for each time that it is certain; else ""."""
        found = ""
        while self.monitor.poll(0):
            event, _ = struct.unpack("=HI", self.monitor.recv_multipart()[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._broken_off = 0
                found = ""
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                found = _REFUSED
            else:
                self._broken_off += 1
                if self._broken_off == _TRIES:
                    found = self._why()
        return found

    def close(self) -> None:
        """Before the socket is closed: ZeroMQ would wait for the reader of an event."""
        self._socket.disable_monitor()

    def _why(self) -> str:
        if self._keyed:
            return "what answers there is not the daemon of this key: another one, or one without keys"
        return "what answers there is no earwitness, or wants a key: --key FILE (there, `earwitness keys new NAME`)"
