"""A TCP relay that counts what a client asks a real server, and servers that refuse everybody, for tests."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.send import serving


@dataclass
class Count:
    """What came by."""

    requests: list[str] = field(default_factory=list)  # their first lines
    logins: int = 0  # requests with a user and a password

    def add(self, head: str) -> None:
        self.requests.append(head.partition("\r\n")[0])
        self.logins += "\nauthorization:" in head.lower()


@contextmanager
def counting_relay(port: int) -> Iterator[tuple[int, Count]]:
    """A port that hands on to `port`, and the count of the requests (RTSP or HTTP without bodies)."""
    count = Count()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, port, count), daemon=True)
        thread.start()
        yield listener.getsockname()[1], count
    thread.join(5)


@contextmanager
def refusing_http(status: int) -> Iterator[tuple[str, Count]]:
    """The URL of a web server that answers everything with `status` (401 asks for basic), and its count."""
    count = Count()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            count.add(f"{self.requestline}\r\n{self.headers}")
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler) as base:
        yield base, count


def _accept(listener: socket.socket, port: int, count: Count) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=_pump, args=(client, server, count), daemon=True).start()
        threading.Thread(target=_pump, args=(server, client, None), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, count: Count | None) -> None:
    seen = ""
    with source, target, suppress(OSError):
        while data := source.recv(65_536):
            if count is not None and not data.startswith(b"$"):  # RTCP between the requests
                seen += data.decode(errors="replace")
                *heads, seen = seen.split("\r\n\r\n")
                for head in heads:
                    count.add(head)
            target.sendall(data)
