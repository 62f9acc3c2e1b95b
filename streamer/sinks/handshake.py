"""What becomes of a subscriber's attempts to connect: ZeroMQ says nothing, whatever is wrong with a key."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress

import zmq

from streamer.sinks.keys import ClientKey

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_TRIES = 3
"""A handshake may break off once or twice because a daemon is starting or stopping."""
_REFUSED = "the daemon refuses this key: it is not on its list, or was revoked (`earwitness keys list` there)"
_OTHER_DAEMON = "what answers there is not the daemon of this key: another one, or one without keys"
_WANTS_KEY = "what answers there is no earwitness, or wants a key: --key FILE (there, `earwitness keys new NAME`)"


class Handshake:
    """A connecting socket's key, and why it is not let in. Used by the socket's thread."""

    def __init__(self, socket: zmq.Socket[bytes], key: ClientKey | None) -> None:
        """Set the key; before the socket connects."""
        self._socket = socket
        self._keyed = key is not None
        self._broken_off = 0
        self._given_up: set[str] = set()
        if key is not None:
            socket.set(zmq.CURVE_SERVERKEY, key.server_public.encode())
            socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        """To be polled along with the socket."""

    def refusal(self) -> str:
        """Why the newest attempts failed and what to do, once for each time that it is certain; else ""."""
        found = ""
        while self.monitor.poll(0):
            data, endpoint = self.monitor.recv_multipart()
            event, _ = struct.unpack("=HI", data)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._broken_off, found = 0, ""
                continue
            self._broken_off += 1
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                found = _REFUSED
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._broken_off == _TRIES:
                found = _OTHER_DAEMON if self._keyed else _WANTS_KEY
            if event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._given_up.add(endpoint.decode(errors="replace"))
        return found

    def try_again(self, addresses: Sequence[str]) -> None:
        """Connect anew where ZeroMQ has given up, as it does where a key is refused; `addresses` are all there are."""
        for address in addresses if self._given_up - set(addresses) else sorted(self._given_up):
            with suppress(zmq.ZMQError):  # it has forgotten it by itself
                self._socket.disconnect(address)
            self._socket.connect(address)
        self._given_up.clear()

    def close(self) -> None:
        """Before the socket is closed: ZeroMQ would wait for the reader of an event."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
