"""Those who are connected to the HTTP port: how many, for how long, and with which right."""

from __future__ import annotations

import hmac
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.errors import KeysError
from streamer.private import read_text
from streamer.sinks.refusals import Refusals

_MOST = 32
"""Connections at a time, each of which has a thread. Prometheus, a probe and a person with a browser need three."""
_ASK_S = 10.0
"""How long a client may take from when it has connected until it has said what it wants."""
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class HttpGuard:
    """What a request must bring, and how the connection is protected."""

    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    certificate: bytes = b""
    """What `tls` was made of, by which a new one is told from the old."""

    @classmethod
    def load(cls, token: Path | None, cert: Path | None, key: Path | None) -> HttpGuard:
        """Read the files. Raises `KeysError` if one can't be used, or others can read what is secret."""
        word = None
        if token is not None:
            word = read_text(token).strip()
            if len(word) < _SHORTEST_TOKEN or not word.isascii() or not word.isprintable():
                how = f"`openssl rand -hex 32 > {token}`"
                raise KeysError(f"{token}: a token is one line of at least {_SHORTEST_TOKEN} ASCII characters: {how}")
        if cert is None or key is None:
            if cert is not key:
                raise KeysError("http.cert and http.key belong together: give both, or none")
            return cls(word)
        read_text(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(cert, key, password="")  # without one, OpenSSL would ask for it on the terminal
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise KeysError(f"{cert} and {key} are no certificate with its key (PEM): {why}") from None
        return cls(word, context, cert.read_bytes())


@dataclass(slots=True)
class _Guest:
    connection: socket.socket
    timer: threading.Timer
    settled: bool = False  # it has asked for something, or was counted as refused


class Crowd:
    """The connections of one HTTP port. Thread-safe.

    Whoever trickles a request, or opens connections and says nothing, holds a thread until his time is up, or until
    somebody newer needs the place.
    """

    def __init__(self, guard: HttpGuard, refusals: Refusals, address: str, refused: Callable[[str], None]) -> None:
        """`refused` hears the reason of each refusal."""
        self._guard = guard
        self._refusals = refusals
        self._url = f"http{'' if guard.tls is None else 's'}://{address}"
        self._refused = refused
        self._lock = threading.Lock()
        self._guests: dict[Any, _Guest] = {}  # by their addresses; the oldest first

    def enter(self, connection: socket.socket, peer: Any) -> None:
        """A connection was made, by `peer` (address, port, ...); if there are too many, the oldest is cut."""
        timer = threading.Timer(_ASK_S, self._cut, (peer, "timeout"))
        timer.daemon = True
        with self._lock:
            oldest = next(iter(self._guests)) if len(self._guests) >= _MOST else None
            self._guests[peer] = _Guest(connection, timer)
        timer.start()
        if oldest is not None:
            self._cut(oldest, "crowded")
            self.leave(oldest)

    def secured(self, connection: socket.socket, peer: Any) -> socket.socket | None:
        """The connection with TLS, where that is wanted; None if the client can't. Waits for its handshake."""
        if self._guard.tls is None:
            return connection
        connection.settimeout(_ASK_S)
        secured = None
        try:
            secured = self._guard.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                if peer in self._guests:
                    self._guests[peer].connection = secured
            secured.do_handshake()
        except (OSError, ValueError):
            self.refuse(peer, "no_tls")
            if secured is not None:
                secured.close()
            return None
        return secured

    def may(self, peer: Any, authorization: str | None) -> bool:
        """Whether a whole request that came with this header is answered; counted if not."""
        self._settle(peer)
        if self._guard.token is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._guard.token.encode()):
            return True
        self._count("wrong_token" if authorization else "no_token", peer)
        return False

    def refuse(self, peer: Any, reason: str) -> None:
        """The client can't be answered; that is counted, but for one that was cut or has been counted."""
        if self._settle(peer):
            self._count(reason, peer)

    def leave(self, peer: Any) -> None:
        """The connection is closed, or about to be."""
        self.refuse(peer, "closed")
        with self._lock:
            self._guests.pop(peer, None)

    def _settle(self, peer: Any) -> bool:
        """The client needs no watching any more; gives whether it did until now."""
        with self._lock:
            guest = self._guests.get(peer)
            if guest is None or guest.settled:
                return False
            guest.settled = True
        guest.timer.cancel()
        return True

    def _cut(self, peer: Any, reason: str) -> None:
        self.refuse(peer, reason)
        with self._lock:
            guest = self._guests.get(peer)
        if guest is not None:
            with suppress(OSError):  # gone by itself
                socket.socket.shutdown(guest.connection, socket.SHUT_RDWR)  # without TLS's farewell, which may wait

    def _count(self, reason: str, peer: Any) -> None:
        with self._lock:
            self._refusals.push(reason, self._url, str(peer[0]))
        self._refused(reason)
