"""One HTTP port for /metrics, /healthz and /readyz."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streamer.errors import UsageError
from streamer.runtime.crowd import Crowd, HttpGuard
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.refusals import HTTP_REASONS, Refusals

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


def check_address(address: str, guard: HttpGuard) -> None:
    """Raises `UsageError` if a `HealthServer` can't listen at `address`."""
    crowd = Crowd(guard, Refusals(time.monotonic, HTTP_REASONS), address, lambda reason: None)
    for server in _bound(address, BaseHTTPRequestHandler, crowd):
        server.server_close()


class HealthServer:
    """Answers HTTP requests in threads of its own, from its creation until `close`."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        healthy: Callable[[], Answer],
        ready: Callable[[], Answer],
        guard: HttpGuard | None = None,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`healthy` and `ready` are called on each request; `refused` with the reason of each refused one.

        Raises:
            UsageError: the address is malformed, in use, or reaches beyond this machine without a token.

        """
        self._crowd = Crowd(guard or HttpGuard(), Refusals(time.monotonic, HTTP_REASONS), address, refused)
        self._servers = _bound(address, _handler(registry, healthy, ready, self._crowd), self._crowd)
        self.port: int = self._servers[0].server_address[1]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def renew(self, guard: HttpGuard) -> None:
        """Use another token or certificate from now on. Whether there is TLS can't change."""
        self._crowd.guard = guard

    def close(self) -> None:
        """Free the port."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], crowd: Crowd) -> None:
        self._crowd = crowd
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Without HTTPServer's lookup of the host name, which may wait for DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        self._crowd.add(request, client_address)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._crowd.remove(client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the request's own thread, so that a slow TLS handshake does not delay other clients.
        secured = self._crowd.secured(request, client_address)
        if secured is not None:
            with secured:
                super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s disconnected during a request", client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _bound(address: str, handler: type[BaseHTTPRequestHandler], crowd: Crowd) -> list[ThreadingHTTPServer]:
    """A server for each of the local addresses that the host resolves to."""
    host, port = split_address(address)
    local = loopback_addresses(host)
    if not local and crowd.guard.token is None:
        raise UsageError(
            f"metrics address {address} reaches beyond this machine, which requires a token: create one with "
            "`(umask 77; openssl rand -hex 32 > metrics.token)` and set http.token in the config to the file, or use "
            f"127.0.0.1:{port}"
        )
    servers: list[ThreadingHTTPServer] = []
    try:
        for one in local or [host]:
            servers.append((_Server6 if ":" in one else _Server)((one, port), handler, crowd))
            port = servers[0].server_address[1]  # the system may have chosen it
    except OSError as error:
        for server in servers:
            server.server_close()
        raise UsageError(
            f"metrics address {address}: {error.strerror or error}; choose another with --metrics HOST:PORT, or off"
        ) from None
    return servers


def _handler(
    registry: CollectorRegistry, healthy: Callable[[], Answer], ready: Callable[[], Answer], crowd: Crowd
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S  # a silent client must not occupy a thread forever
        protocol_version = "HTTP/1.1"
        server_version = "earwitness"
        sys_version = ""

        def do_GET(self) -> None:
            if not crowd.authorized(self.client_address, self.headers.get("Authorization")):
                self._answer(
                    401, "application/json", b'{"error": "a token is required: Authorization: Bearer TOKEN"}\n'
                )
                return
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
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            crowd.refuse(self.client_address, "malformed")
            super().send_error(code, message, explain)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler
