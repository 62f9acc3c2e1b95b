"""Why a subscriber can't connect: ZeroMQ itself reports no error when a key is refused."""

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
"""A handshake may be interrupted once or twice because the daemon is starting or stopping."""
_REFUSED = "the daemon refused this key: it is not on its allow-list, or was revoked (run `earwitness keys list` there)"
_OTHER_DAEMON = "this key is for another daemon, or the daemon there does not use keys"
_NEEDS_KEY = "not an earwitness daemon, or it requires a key: --key FILE (from `earwitness keys new NAME` there)"


class Handshake:
    """Sets a connecting socket's key, and finds out why it is refused. Used by the socket's thread."""

    def __init__(self, socket: zmq.Socket[bytes], key: ClientKey | None) -> None:
        """Set the key. To be called before the socket connects."""
        self._socket = socket
        self._keyed = key is not None
        self._failed = 0
        self._given_up: set[str] = set()
        if key is not None:
            socket.set(zmq.CURVE_SERVERKEY, key.server_public.encode())
            socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        """To be polled together with the socket."""

    def refusal(self) -> str:
        """Why the latest attempts failed and what to do; "" if they did not, or if this was already returned."""
        found = ""
        while self.monitor.poll(0):
            data, endpoint = self.monitor.recv_multipart()
            event, _ = struct.unpack("=HI", data)
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failed, found = 0, ""
                continue
            self._failed += 1
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                found = _REFUSED
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._failed == _TRIES:
                found = _OTHER_DAEMON if self._keyed else _NEEDS_KEY
            if event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._given_up.add(endpoint.decode(errors="replace"))
        return found

    def try_again(self, addresses: Sequence[str]) -> None:
        """Reconnect where ZeroMQ has given up, as it does when a key is refused; `addresses` are all the socket's."""
        for address in addresses if self._given_up - set(addresses) else sorted(self._given_up):
            with suppress(zmq.ZMQError):  # ZeroMQ has already dropped it
                self._socket.disconnect(address)
            self._socket.connect(address)
        self._given_up.clear()

    def close(self) -> None:
        """To be called before the socket is closed, which would otherwise wait until the events are read."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
