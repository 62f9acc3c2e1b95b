"""The connections to the HTTP port: limits their number and duration, and authenticates requests."""

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

_MAX_CONNECTIONS = 32
"""Simultaneous connections, each with a thread. Prometheus, a health probe and a browser need three."""
_REQUEST_S = 10.0
"""How long after connecting a client may take to send its request."""
_MIN_TOKEN = 16


@dataclass(frozen=True, slots=True)
class HttpGuard:
    """The token that requests must contain, and the TLS settings."""

    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    certificate: bytes = b""
    """The content of `tls`'s certificate file; comparing it detects a renewed certificate."""

    @classmethod
    def load(cls, token: Path | None, cert: Path | None, key: Path | None) -> HttpGuard:
        """Read the files. Raises `KeysError` if one is invalid, or a secret one is accessible to other users."""
        secret = None
        if token is not None:
            secret = read_text(token).strip()
            if len(secret) < _MIN_TOKEN or not secret.isascii() or not secret.isprintable():
                how = f"`openssl rand -hex 32 > {token}`"
                raise KeysError(f"{token}: a token must be one line of at least {_MIN_TOKEN} ASCII characters: {how}")
        if cert is None or key is None:
            if cert is not key:
                raise KeysError("http.cert and http.key belong together: set both or neither")
            return cls(secret)
        read_text(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(cert, key, password="")  # without one, OpenSSL prompts for it on the terminal
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise KeysError(f"{cert} and {key} are not a certificate and its private key (PEM): {why}") from None
        return cls(secret, context, cert.read_bytes())


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    timer: threading.Timer
    settled: bool = False  # it has sent its request, or was counted as refused


class Crowd:
    """The connections of one HTTP port. Thread-safe.

    A client that sends its request byte by byte, or nothing at all, occupies a thread until it times out, or until a
    newer connection takes its place.
    """

    def __init__(self, guard: HttpGuard, refusals: Refusals, address: str, refused: Callable[[str], None]) -> None:
        """`refused` is called with the reason of each refusal."""
        self.guard = guard
        """May be replaced at any time: the next handshake and the next request use the new one."""
        self._refusals = refusals
        self._url = f"http{'' if guard.tls is None else 's'}://{address}"
        self._refused = refused
        self._lock = threading.Lock()
        self._clients: dict[Any, _Client] = {}  # by address; the oldest first

    def add(self, connection: socket.socket, peer: Any) -> None:
        """Add a new connection from `peer` (address, port, ...); if there are too many, the oldest is closed."""
        timer = threading.Timer(_REQUEST_S, self._close, (peer, "timeout"))
        timer.daemon = True
        with self._lock:
            oldest = next(iter(self._clients)) if len(self._clients) >= _MAX_CONNECTIONS else None
            self._clients[peer] = _Client(connection, timer)
        timer.start()
        if oldest is not None:
            self._close(oldest, "crowded")
            self.remove(oldest)

    def secured(self, connection: socket.socket, peer: Any) -> socket.socket | None:
        """Add TLS to the connection, if configured. Waits for the handshake; None if it fails."""
        tls = self.guard.tls
        if tls is None:
            return connection
        connection.settimeout(_REQUEST_S)
        secured = None
        try:
            secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                if peer in self._clients:
                    self._clients[peer].connection = secured
            secured.do_handshake()
        except (OSError, ValueError):
            self.refuse(peer, "no_tls")
            if secured is not None:
                secured.close()
            return None
        return secured

    def authorized(self, peer: Any, authorization: str | None) -> bool:
        """Whether a complete request with this header may be answered; counts it as refused if not."""
        self._settle(peer)
        expected = self.guard.token
        if expected is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), expected.encode()):
            return True
        self._count("wrong_token" if authorization else "no_token", peer)
        return False

    def refuse(self, peer: Any, reason: str) -> None:
        """Count the client as refused, unless it has already been answered or counted."""
        if self._settle(peer):
            self._count(reason, peer)

    def remove(self, peer: Any) -> None:
        """Remove a connection that is closed, or about to be."""
        self.refuse(peer, "closed")
        with self._lock:
            self._clients.pop(peer, None)

    def _settle(self, peer: Any) -> bool:
        """Cancel the client's time limit; returns whether it was still running."""
        with self._lock:
            client = self._clients.get(peer)
            if client is None or client.settled:
                return False
            client.settled = True
        client.timer.cancel()
        return True

    def _close(self, peer: Any, reason: str) -> None:
        self.refuse(peer, reason)
        with self._lock:
            client = self._clients.get(peer)
        if client is not None:
            # The plain socket's method: SSLSocket's would discard the TLS state, which the client's thread is using.
            with suppress(OSError):  # already closed
                socket.socket.shutdown(client.connection, socket.SHUT_RDWR)

    def _count(self, reason: str, peer: Any) -> None:
        with self._lock:
            self._refusals.push(reason, self._url, str(peer[0]))
        self._refused(reason)
