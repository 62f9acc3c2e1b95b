"""One HTTP port for /metrics, /healthz and /readyz."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streamer.errors import UsageError
from streamer.sinks.loopback import loopback_addresses

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a check, and a JSON body that explains it."""

    ok: bool
    body: dict[str, Any]


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` as host and port; `[::1]:9464` for IPv6.

    Raises:
        UsageError: it is not one.

    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"metrics address {address!r} must be HOST:PORT, e.g. 127.0.0.1:9464, or off")
    return host, int(port)


def check_address(address: str) -> None:
    """Raises `UsageError` if a `HealthServer` can't be started at `address`."""
    for server in _bound(address, BaseHTTPRequestHandler):
        server.server_close()


class HealthServer:
    """Serves HTTP in its own threads, from construction until `close`."""

    def __init__(
        self, address: str, registry: CollectorRegistry, healthy: Callable[[], Answer], ready: Callable[[], Answer]
    ) -> None:
        """`healthy` and `ready` are called on each request.

        Raises:
            UsageError: the address is malformed or in use.

        """
        self._servers = _bound(address, _handler(registry, healthy, ready))
        self.port: int = self._servers[0].server_address[1]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def close(self) -> None:
        """Stop serving and free the port."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the host name, which may block on DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s disconnected during a request", client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _bound(address: str, handler: type[BaseHTTPRequestHandler]) -> list[ThreadingHTTPServer]:
    """A server on each of the host's loopback addresses, or on the host as given. Raises `UsageError`."""
    host, port = split_address(address)
    servers: list[ThreadingHTTPServer] = []
    try:
        for one in loopback_addresses(host) or [host]:
            servers.append((_Server6 if ":" in one else _Server)((one, port), handler))
            port = servers[0].server_address[1]  # if the system chose it
    except OSError as error:
        for server in servers:
            server.server_close()
        raise UsageError(
            f"metrics address {address}: {error.strerror or error}; choose another with --metrics HOST:PORT, or off"
        ) from None
    return servers


def _handler(
    registry: CollectorRegistry, healthy: Callable[[], Answer], ready: Callable[[], Answer]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S  # a silent client must not hold a thread for ever
        protocol_version = "HTTP/1.1"
        server_version = "earwitness"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(registry))
            elif path in ("/healthz", "/readyz"):
                answer = healthy() if path == "/healthz" else ready()
                body = json.dumps(answer.body).encode() + b"\n"
                self._answer(200 if answer.ok else 503, "application/json", body)
            else:
                body = b'{"error": "not found; use /metrics, /healthz or /readyz"}\n'
                self._answer(404, "application/json", body)

        do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler
