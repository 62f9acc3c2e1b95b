"""What every open port receives: scans, and data of other protocols."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def garbage(port: int) -> None:
    """Scan the port, and send 1 MB each of several kinds of garbage."""
    for _ in range(100):
        socket.create_connection(("127.0.0.1", port)).close()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    kinds = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 40_000,
        bytes.fromhex("160301020001000001fc0303") + bytes(1_000_000),
        greeting + os.urandom(1_000_000),
        greeting + b"\x04\xc8\x05HELLO\x01\x00" + os.urandom(1_000_000),
        greeting + b"\x06" + b"\xff" * 8 + os.urandom(1_000_000),  # a command of 2^64 bytes
        *(os.urandom(1_000_000) for _ in range(4)),
    ]
    for data in kinds:
        with socket.create_connection(("127.0.0.1", port)) as one, suppress(OSError):
            one.settimeout(5)
            one.sendall(data)
